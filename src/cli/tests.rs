//! Tests of the command line as a whole: arguments, help, completions.
//!
//! In: the command's description. Out: verdicts.
//! Drops: nothing. Must not know: the daemon.

use clap::{Command, CommandFactory};

use super::Cli;

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

/// Every command with its full name, groups included.
fn every_command(command: &Command, name: &str) -> Vec<(String, Command)> {
    let mut all = vec![(name.to_owned(), command.clone())];
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        all.extend(every_command(sub, &format!("{name} {}", sub.get_name())));
    }
    all
}

#[test]
fn every_command_says_what_it_does_and_gives_examples_that_name_it() {
    let all = every_command(&Cli::command(), "doorward");
    assert!(all.len() > 25, "{} commands", all.len());
    for (name, mut command) in all {
        assert!(command.get_about().is_some(), "{name} says nothing of itself");
        let help = command.render_long_help().to_string();
        let examples = help.split_once("Examples:").map(|(_, examples)| examples).unwrap_or_default();
        assert!(examples.contains(&name), "{name} has no example of itself:\n{help}");
    }
}

#[test]
fn every_example_is_a_command_line_that_parses() {
    let mut seen = 0;
    for (name, command) in every_command(&Cli::command(), "doorward") {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter(|line| line.starts_with("  ")) {
            // Only what stands between the shell's own words is ours.
            let Some(start) = line.find("doorward ") else { continue };
            let ours = line[start..].split(" | ").next().unwrap_or_default().split(" > ").next().unwrap_or_default();
            let ours = ours.split("   ").next().unwrap_or_default().trim();
            let ours = ours.strip_prefix("doorward doorward ").map_or_else(|| ours.to_owned(), |rest| format!("doorward {rest}"));
            let words = ours.split('"').enumerate().flat_map(|(index, part)| match index % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
                _ => vec![part.to_owned()],
            });
            let parsed = Cli::command().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{name}: {ours}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} examples were found");
}

#[test]
fn no_option_takes_a_password() {
    for (name, command) in every_command(&Cli::command(), "doorward") {
        for argument in command.get_arguments() {
            let long = argument.get_long().unwrap_or_default();
            assert!(!matches!(long, "password" | "token" | "secret"), "{name} --{long} would show a secret to every user of the machine");
        }
    }
}

#[test]
fn wrong_usage_is_refused_before_anything_is_asked() {
    for line in [
        "doorward",
        "doorward subject add anna",
        "doorward verify a.jpg",
        "doorward verify a.jpg b.jpg --subject anna",
        "doorward camera update yard --enable --disable",
        "doorward camera set-credential yard --password-file f",
        "doorward watch --type nonsense",
        "doorward --server 127.0.0.1:50051 status",
        "doorward subject add anna a.jpg --expire tomorrow",
    ] {
        let refused = Cli::command().try_get_matches_from(line.split(' '));
        assert!(refused.is_err_and(|error| error.exit_code() == 2), "{line}");
    }
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "doorward", &mut script);
        let script = String::from_utf8(script).expect("text");
        assert!(script.contains("set-credential") && script.contains("completions"), "{shell}");
    }
}
