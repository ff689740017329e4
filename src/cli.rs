//! The command line: one binary for the daemon and for everything one asks of it.
//!
//! In: arguments. Out: text or JSON lines on standard output, complaints on standard error, and an
//! exit code: 0 done, 1 refused or failed, 2 wrong usage, 3 no daemon reached, 4 partly refused; `verify` answers by 0 and 1.
//! Drops: nothing.
//! Must not know: the stages; commands speak to the daemon over gRPC like any other client.

mod annotate;
mod calibrate;
mod camera;
mod camera_settings;
mod client;
mod completions;
mod detect;
mod doctor;
mod embedding;
mod evaluate;
mod event;
mod event_filter;
mod event_line;
mod event_types;
mod face_table;
mod failure;
mod gallery;
mod identify;
mod input;
mod models;
mod output;
mod reload;
mod replay;
mod search;
mod serve;
mod shadow;
mod snapshot;
mod status;
mod subject;
mod telling_settings;
mod threshold;
mod train;
mod verify;
mod watch;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use client::ClientOptions;
use output::Output;

const EXAMPLES: &str = "\
Examples:
  doorward doctor                                     what works on this machine, and the mend
  doorward serve --config /etc/doorward/doorward.toml
  doorward camera add front-door rtsp://192.0.2.7/stream1 --role entry
  doorward subject add anna anna.jpg --name \"Anna K.\"
  doorward watch --snapshots shots/

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no daemon reached, 4 some refused; of
verify 0 same person, 1 not the same, 2 could not be told.";

/// doorward recognises the faces that pass a building's cameras.
#[derive(Debug, Parser)]
#[command(name = "doorward", version, about, after_help = EXAMPLES, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    client: ClientOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    #[command(subcommand)]
    Camera(camera::Camera),
    #[command(subcommand)]
    Subject(subject::Subject),
    Reload(reload::Reload),
    Replay(replay::Replay),
    Watch(watch::Watch),
    #[command(subcommand)]
    Event(event::Event),
    Snapshot(snapshot::Snapshot),
    Identify(identify::Identify),
    Search(search::Search),
    Verify(verify::Verify),
    Detect(detect::Detect),
    Status(status::Status),
    Gallery(gallery::Gallery),
    #[command(subcommand)]
    Shadow(shadow::Shadow),
    #[command(subcommand)]
    Models(models::Models),
    Calibrate(calibrate::Calibrate),
    #[command(subcommand)]
    Evaluate(evaluate::Evaluate),
    #[command(subcommand)]
    Train(train::Train),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
}

impl Cli {
    /// Does what was asked, says what went wrong, and answers the exit code.
    pub fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let failure = failure::describe(&error);
                if !failure.text.is_empty() {
                    eprintln!("{}", failure.text);
                }
                ExitCode::from(failure.exit_code)
            }
        }
    }

    fn dispatch(self) -> anyhow::Result<()> {
        let Self { client, command } = self;
        let out = Output::new(client.json);
        match command {
            Command::Serve(serve) => return serve.run(),
            Command::Replay(replay) => return replay.run(out),
            Command::Models(models) => return models.run(&out),
            Command::Calibrate(calibrate) => return calibrate.run(out),
            Command::Train(train) => return train.run(out),
            Command::Evaluate(evaluate) => return evaluate.run(&client, out),
            Command::Completions(completions) => return completions.run(),
            _ => {}
        }
        // A client waits for one answer at a time: one thread is enough.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match command {
                Command::Camera(camera) => camera.run(&client, &out).await,
                Command::Subject(subject) => subject.run(&client, &out).await,
                Command::Reload(reload) => reload.run(&client, &out).await,
                Command::Watch(watch) => watch.run(&client, &out).await,
                Command::Event(event) => event.run(&client, &out).await,
                Command::Snapshot(snapshot) => snapshot.run(&client, &out).await,
                Command::Identify(identify) => identify.run(&client, &out).await,
                Command::Search(search) => search.run(&client, &out).await,
                Command::Verify(verify) => verify.run(&client, &out).await,
                Command::Detect(detect) => detect.run(&client, &out).await,
                Command::Status(status) => status.run(&client, &out).await,
                Command::Gallery(gallery) => gallery.run(&client, &out).await,
                Command::Shadow(shadow) => shadow.run(&client, out).await,
                Command::Doctor(doctor) => doctor.run(&client, &out).await,
                Command::Serve(_)
                | Command::Replay(_)
                | Command::Models(_)
                | Command::Calibrate(_)
                | Command::Evaluate(_)
                | Command::Train(_)
                | Command::Completions(_) => Ok(()),
            }
        })
    }
}
