//! `doorward subject`: enrols people, shows them, changes them, erases them.
//!
//! In: options and photos. Out: calls of `GalleryService` and what came of them.
//! Drops: nothing.
//! Must not know: how a photo becomes a template.

mod import;
mod samples;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use prost_types::{FieldMask, Timestamp};
use tonic_types::StatusExt;

use super::client::{ClientOptions, Daemon, request_id};
use super::failure::Usage;
use super::input::{parse_moment, parse_pair, read_photo};
use super::output::{Output, Table, moment, or_dash, spinner};
use crate::pb;

/// Enrols people, shows them, changes them, erases them
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  doorward subject add anna anna.jpg --name \"Anna K.\" --watchlist staff
  doorward subject import people/ --report refused.csv
  doorward subject list
  doorward subject remove anna")]
pub enum Subject {
    Add(Add),
    Import(import::Import),
    List(List),
    Show(Show),
    Update(Update),
    Remove(Remove),
    AddSample(samples::AddSample),
    Samples(samples::List),
    RemoveSample(samples::Remove),
}

/// Enrols a person; the next frame can match
///
/// One photo suffices; more photos of different days help. Each must show exactly one face. Either
/// all photos are taken or nobody is enrolled.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward subject add anna anna.jpg --name \"Anna K.\"
  doorward subject add b.jones jones-1.jpg jones-2.jpg --watchlist staff --attribute floor=3
  doorward subject add visitor-17 v.jpg --consent form-2026-17 --expire 2026-12-31
  doorward subject add unknown-7 --snapshot 0193b6f2-8c1e-7d7a-a3ce-1f2e3d4c5b6a")]
pub struct Add {
    /// The id you choose: letters, digits, '-', '_' and '.'
    id: String,
    /// JPEG or PNG files
    #[arg(required_unless_present = "snapshots")]
    photos: Vec<PathBuf>,
    /// Enrol the best shot of an event (repeatable)
    #[arg(long = "snapshot", value_name = "SNAPSHOT_ID")]
    snapshots: Vec<String>,
    #[command(flatten)]
    fields: Fields,
    /// Enrol although the face is close to another subject's
    #[arg(long)]
    allow_duplicate: bool,
    /// Enrol although the photos do not look like one person
    #[arg(long)]
    allow_inconsistent: bool,
}

/// What an operator may say of a person.
#[derive(Debug, Args)]
struct Fields {
    /// What people call the person
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// A named set the person stands on (repeatable)
    #[arg(long = "watchlist", value_name = "LIST")]
    watchlists: Vec<String>,
    /// Anything worth keeping with the person (repeatable)
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = parse_pair)]
    attributes: Vec<(String, String)>,
    /// Where the person's consent is filed
    #[arg(long, value_name = "REFERENCE")]
    consent: Option<String>,
    /// When the person stops matching: RFC 3339, or a day for its first moment (00:00 UTC): name the day after the last
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    expire: Option<Timestamp>,
}

impl Fields {
    fn apply(self, subject: &mut pb::Subject) -> Vec<&'static str> {
        let given = [
            ("display_name", self.name.is_some()),
            ("watchlists", !self.watchlists.is_empty()),
            ("attributes", !self.attributes.is_empty()),
            ("consent_reference", self.consent.is_some()),
            ("expire_time", self.expire.is_some()),
        ];
        subject.display_name = self.name.unwrap_or_default();
        subject.watchlists = self.watchlists;
        subject.attributes = self.attributes.into_iter().collect();
        subject.consent_reference = self.consent.unwrap_or_default();
        subject.expire_time = self.expire;
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(field, _)| field).collect()
    }
}

/// Lists who is enrolled
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward subject list
  doorward subject list --watchlist staff --json | jq -r .id")]
pub struct List {
    /// Only who stands on this list
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    watchlist: String,
}

/// Shows one person with all that is stored
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward subject show anna")]
pub struct Show {
    /// Who
    id: String,
}

/// Changes what is said of a person; what is not named stays
///
/// --watchlist and --attribute replace the whole set.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward subject update anna --name \"Anna Kowalska\"
  doorward subject update anna --watchlist staff --watchlist board
  doorward subject update anna --reset expire")]
pub struct Update {
    /// Who
    id: String,
    #[command(flatten)]
    fields: Fields,
    /// Empty it (repeatable)
    #[arg(long, value_name = "FIELD")]
    reset: Vec<Resettable>,
    /// Refuse when the person has changed since this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

/// What may be emptied.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Resettable {
    Name,
    Watchlists,
    Attributes,
    Consent,
    Expire,
}

/// Erases a person: templates, samples and pictures
///
/// Past events stay and show an erased person. Nothing brings the person back unasked. Pictures of
/// visits in which nobody was identified stay until they are too old: events.snapshot_retention_days, or the
/// age of their events where that is less.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward subject remove anna\n  doorward subject remove anna --json > receipt.json")]
pub struct Remove {
    /// Who
    id: String,
    /// Refuse when the person has changed since this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

impl Subject {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, or that it cannot be reached.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.run(client, *out).await,
            Self::Import(import) => import.run(client, *out).await,
            Self::List(list) => list.run(&client.connect().await?, *out).await,
            Self::Show(show) => show.run(&client.connect().await?, *out).await,
            Self::Update(update) => update.run(client, *out).await,
            Self::Remove(remove) => remove.run(&client.connect().await?, *out).await,
            Self::AddSample(add) => add.run(client, *out).await,
            Self::Samples(list) => list.run(&client.connect().await?, *out).await,
            Self::RemoveSample(remove) => remove.run(&client.connect().await?, *out).await,
        }
    }
}

impl Add {
    async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let mut samples = Vec::with_capacity(self.photos.len() + self.snapshots.len());
        let names: Vec<String> =
            self.photos.iter().map(|photo| photo.display().to_string()).chain(self.snapshots.iter().cloned()).collect();
        for photo in &self.photos {
            samples.push(samples::of_photo(read_photo(photo)?));
        }
        samples.extend(self.snapshots.into_iter().map(samples::of_snapshot));
        let mut subject = pb::Subject { id: self.id, ..pb::Subject::default() };
        self.fields.apply(&mut subject);
        let request = pb::CreateSubjectRequest {
            subject: Some(subject),
            samples,
            allow_duplicate: self.allow_duplicate,
            allow_inconsistent: self.allow_inconsistent,
            request_id: request_id(),
        };
        let daemon = client.connect().await?;
        let waiting = spinner("enrolling");
        let response = daemon.gallery().create_subject(request).await;
        waiting.finish_and_clear();
        let response = response.map_err(|status| with_photo(status, &names))?.into_inner();
        if out.json {
            return out.message("CreateSubjectResponse", &response);
        }
        let id = response.subject.map(|subject| subject.id).unwrap_or_default();
        out.line(&format!(
            "enrolled {id} with {} (gallery version {})",
            plural(response.samples.len(), "sample"),
            response.gallery_version
        ))?;
        out.table(&samples::table(&response.samples))
    }
}

/// A refusal, with the name of the photo that it blames.
fn with_photo(status: tonic::Status, names: &[String]) -> anyhow::Error {
    let fields = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    let index = fields.iter().find_map(|violation| violation.field.strip_prefix("samples[")?.strip_suffix(']')?.parse::<usize>().ok());
    let error = anyhow::Error::from(status);
    match index.and_then(|index| names.get(index)) {
        Some(name) => error.context(format!("photo {name}")),
        None => error,
    }
}

/// `1 sample`, `2 samples`.
fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("{count} {what}") } else { format!("{count} {what}s") }
}

impl List {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let mut table = Table::new(["ID", "NAME", "SAMPLES", "WATCHLISTS", "ORIGIN", "EXPIRES", "CHANGED"]);
        let (mut page_token, mut count) = (String::new(), 0);
        loop {
            let request = pb::ListSubjectsRequest { page_token, watchlist: self.watchlist.clone(), page_size: 0 };
            let page = daemon.gallery().list_subjects(request).await?.into_inner();
            count += page.subjects.len();
            for subject in page.subjects {
                if out.json {
                    out.message("Subject", &subject)?;
                    continue;
                }
                table.row([
                    subject.id.clone(),
                    or_dash(&subject.display_name),
                    subject.sample_count.to_string(),
                    or_dash(&subject.watchlists.join(",")),
                    origin(&subject).to_owned(),
                    moment(subject.expire_time.as_ref()),
                    moment(subject.update_time.as_ref()),
                ]);
            }
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        match (out.json, count) {
            (true, _) => Ok(()),
            (false, 0) => out.line("nobody is enrolled; add somebody with `doorward subject add ID PHOTO`"),
            (false, _) => out.table(&table),
        }
    }
}

fn origin(subject: &pb::Subject) -> &'static str {
    match subject.origin() {
        pb::SubjectOrigin::Unspecified => "-",
        pb::SubjectOrigin::Rpc => "rpc",
        pb::SubjectOrigin::Folder => "folder",
    }
}

impl Show {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let response = daemon.gallery().get_subject(pb::GetSubjectRequest { id: self.id }).await?.into_inner();
        let subject = response.subject.unwrap_or_default();
        if out.json {
            return out.message("Subject", &subject);
        }
        let mut attributes: Vec<_> = subject.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        attributes.sort();
        let mut table = Table::of_facts();
        table.fact("id", &subject.id);
        table.fact("uid", &subject.uid);
        table.fact("name", &subject.display_name);
        table.fact("watchlists", subject.watchlists.join(", "));
        table.fact("attributes", attributes.join(" "));
        table.fact("consent", &subject.consent_reference);
        table.fact("expires", moment(subject.expire_time.as_ref()));
        table.fact("samples", subject.sample_count.to_string());
        table.fact("origin", origin(&subject));
        table.fact("created", moment(subject.create_time.as_ref()));
        table.fact("changed", moment(subject.update_time.as_ref()));
        table.fact("etag", &subject.etag);
        out.table(&table)
    }
}

impl Update {
    async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let mut subject = pb::Subject { id: self.id, etag: self.etag, ..pb::Subject::default() };
        let mut paths = self.fields.apply(&mut subject);
        for reset in self.reset {
            let path = match reset {
                Resettable::Name => "display_name",
                Resettable::Watchlists => "watchlists",
                Resettable::Attributes => "attributes",
                Resettable::Consent => "consent_reference",
                Resettable::Expire => "expire_time",
            };
            if paths.contains(&path) {
                return Err(Usage(format!("{path} is both set and reset: choose one")).into());
            }
            paths.push(path);
        }
        // An empty mask would mean all fields, and would empty those that were not given.
        if paths.is_empty() {
            return Err(Usage("nothing to change: give --name, --watchlist, --attribute, --consent, --expire or --reset".into()).into());
        }
        let update_mask = Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
        let request = pb::UpdateSubjectRequest { subject: Some(subject), update_mask, request_id: request_id() };
        let subject = client.connect().await?.gallery().update_subject(request).await?.into_inner().subject.unwrap_or_default();
        if out.json {
            return out.message("Subject", &subject);
        }
        out.line(&format!("changed {}: {} (etag {})", subject.id, paths.join(", "), or_dash(&subject.etag)))
    }
}

impl Remove {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let request = pb::DeleteSubjectRequest { id: self.id.clone(), etag: self.etag, request_id: request_id() };
        let receipt = daemon.gallery().delete_subject(request).await?.into_inner();
        if out.json {
            return out.message("DeleteSubjectResponse", &receipt);
        }
        out.line(&format!("erased {} at {}", self.id, moment(receipt.erase_time.as_ref())))?;
        let mut table = Table::of_facts();
        table.fact("uid", &receipt.uid);
        table.fact("templates erased", receipt.templates_erased.to_string());
        table.fact("samples erased", receipt.samples_erased.to_string());
        table.fact("pictures erased", receipt.snapshots_erased.to_string());
        table.fact("gallery version", receipt.gallery_version.to_string());
        out.table(&table)
    }
}
