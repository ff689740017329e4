//! Holds the sources to the rules of the house, by reading them as text.
//!
//! In: every `.rs` file of the packages. Out: one failed test a rule, naming each place.
//! What a compiler or clippy already refuses is not checked again.
//! Must not know: what the code does.

#![allow(clippy::unwrap_used, reason = "a source that cannot be read fails the test")]

#[path = "tidy/edges.rs"]
mod edges;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use edges::{CRATES, MODULES, VALUES};

const LINES_MAX: usize = 500;
/// How far above an `unsafe` its justification may begin.
const SAFETY_LINES_MAX: usize = 8;
const EMPTY_NAMES: [&str; 10] = ["util", "utils", "common", "types", "manager", "managers", "helper", "helpers", "misc", "mod"];

/// A source file, taken apart.
struct Source {
    path: PathBuf,
    text: String,
    /// The text with comments, strings and characters blanked; line by line as the original.
    code: String,
    /// The text of the comments alone; line by line as the original.
    comments: String,
}

impl Source {
    fn new(path: &Path, text: String) -> Self {
        let (code, comments) = separate(&text);
        Self { path: path.into(), text, code, comments }
    }

    /// The module of the library this file belongs to: its name, or its folder's, below `src`.
    fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src").ok()?;
        below.components().next()?.as_os_str().to_str().map(|name| name.trim_end_matches(".rs"))
    }

    /// The code that is shipped: tests may name whatever they need.
    fn shipped(&self) -> &str {
        let is_test = self.path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests.rs" | "tests")));
        let inline = || self.code.find("#[cfg(test)]\nmod ").filter(|at| !self.code[*at..].lines().nth(1).unwrap_or("").ends_with(';'));
        if is_test { "" } else { inline().map_or(&self.code, |at| &self.code[..at]) }
    }

    fn line_of(&self, at: usize) -> usize {
        self.code[..at].lines().count().max(1)
    }
}

#[test]
fn a_module_names_only_modules_that_its_row_allows() {
    assert_clean("rows", rows_out_of_order(MODULES));
    let wrong = sources("src").iter().filter(|source| source.path != Path::new("src/lib.rs")).flat_map(wrong_edges).collect::<Vec<_>>();
    assert_clean("module edges (tests/tidy.rs, MODULES)", wrong);
}

#[test]
fn every_module_of_the_library_has_a_row() {
    let listed: BTreeSet<&str> = MODULES.iter().map(|(module, _)| *module).collect();
    let wrong = sources("src")
        .iter()
        .filter_map(|source| source.module().map(str::to_owned))
        .filter(|module| module != "lib" && !listed.contains(module.as_str()))
        .map(|module| format!("{module} has no row: say which modules it may name"))
        .collect::<BTreeSet<_>>();
    assert_clean("unlisted modules (tests/tidy.rs, MODULES)", wrong);
}

#[test]
fn a_crate_is_named_in_its_rooms_only() {
    assert_clean("crates (tests/tidy.rs, CRATES)", sources("src").iter().flat_map(wrong_crates));
}

#[test]
fn every_file_opens_with_its_room_and_stays_short() {
    assert_clean("files", all_sources().iter().flat_map(wrong_files));
}

#[test]
fn nothing_is_left_for_later() {
    let wrong = all_sources().iter().flat_map(|source| lines_with(source, &source.comments, &["TODO", "FIXME", "XXX"])).collect::<Vec<_>>();
    assert_clean("things put off", wrong);
}

#[test]
fn every_queue_is_bounded() {
    let unbounded = ["unbounded_channel", "unbounded(", "mpsc::channel()"];
    let sources = ["src", "kernels"].into_iter().flat_map(sources).collect::<Vec<_>>();
    assert_clean("unbounded queues", sources.iter().flat_map(|source| lines_with(source, &source.code, &unbounded)));
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    assert_clean("unsafe without SAFETY:", all_sources().iter().flat_map(unexplained_unsafe));
}

#[test]
fn the_checks_see_what_they_are_for() {
    let planted = |path: &str, text: &str| Source::new(Path::new(path), text.to_owned());
    let edges = |path: &str, text: &str| wrong_edges(&planted(path, text)).len();
    assert_eq!(edges("src/track.rs", "use crate::store::Store;"), 1, "a stage that names another");
    assert_eq!(edges("src/track/iou.rs", "use crate::{clock::Timestamp, store::{Store, Other}, infer};"), 2, "a group");
    assert_eq!(edges("src/main.rs", "fn main() { doorward::rpc::serve() }"), 1, "the binary names the library by its name");
    assert_eq!(edges("src/track.rs", "use super::store::Store;"), 1, "the root by super");
    assert_eq!(edges("src/store/a.rs", "use super::track;"), 0, "super of a folder is the folder");
    assert_eq!(edges("src/track.rs", "// crate::store\nlet a = \"crate::store\";\nlet b = r#\"crate::store\"#;"), 0, "prose");
    assert_eq!(edges("src/track.rs", "#[cfg(test)]\nmod tests {\n use crate::store::Store;\n}"), 0, "tests are free");
    assert_eq!(edges("src/track.rs", "#[cfg(test)]\nmod tests;\nuse crate::store::Store;"), 1, "a declaration ends nothing");
    assert_eq!(
        edges("src/track.rs", "let c = '\"'; let d: &'static str; crate::store::x(); let e = '\"';"),
        1,
        "characters are no strings"
    );

    let crates = |path: &str, text: &str| wrong_crates(&planted(path, text)).len();
    assert_eq!(crates("src/track.rs", "use gstreamer as gst;"), 1);
    assert_eq!(crates("src/batch.rs", "fn f() -> ::rusqlite::Result<()> { crate::store::tonic::x() }"), 1);
    assert_eq!(crates("src/ingest/rtsp.rs", "use gstreamer as gst;"), 0);

    assert_eq!(wrong_files(&planted("src/utils.rs", "fn f() {}")).len(), 2, "no room, and a name that says nothing");
    assert_eq!(wrong_files(&planted("src/a.rs", &"//! Room.\n".repeat(501))).len(), 1, "too long");
    assert_eq!(unexplained_unsafe(&planted("src/a.rs", "//! Room.\nunsafe { f() }")).len(), 1);
    assert_eq!(unexplained_unsafe(&planted("src/a.rs", "// SAFETY: f is called once.\nlet a = unsafe { f() };")).len(), 0);
    assert_eq!(rows_out_of_order(&[("a", &["b"]), ("b", &["a"])]).len(), 1, "a cycle");
}

fn rows_out_of_order(rows: &[(&str, &[&str])]) -> Vec<String> {
    let above = |row: usize| rows[..row].iter().map(|(module, _)| *module).collect::<BTreeSet<_>>();
    let named = rows.iter().enumerate().flat_map(|(row, (module, names))| names.iter().map(move |name| (row, module, name)));
    named
        .filter(|(row, _, name)| !above(*row).contains(*name))
        .map(|(_, module, name)| format!("{module} may not name {name}: its row is not above"))
        .collect()
}

fn wrong_edges(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    let allowed = MODULES.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, names)| *names);
    let modules: BTreeSet<&str> = MODULES.iter().map(|(name, _)| *name).collect();
    let may = |name: &str| name == module || allowed.contains(&name) || (VALUES.contains(&name) && !VALUES.contains(&module));
    named_modules(source)
        .into_iter()
        .filter(|(_, name)| modules.contains(name.as_str()) && !may(name))
        .map(|(line, name)| format!("{}:{line}: {module} may not name {name}", source.path.display()))
        .collect()
}

/// What follows `crate::` (in the binary also `doorward::`, in a root file also `super::`), groups taken apart.
fn named_modules(source: &Source) -> Vec<(usize, String)> {
    let is_root_file = source.path.components().count() == 2;
    let mut roots = vec!["crate::"];
    roots.extend((source.module() == Some("main")).then_some("doorward::"));
    roots.extend(is_root_file.then_some("super::"));
    let code = source.shipped();
    let mut found = Vec::new();
    for root in roots {
        for (at, _) in code.match_indices(root).filter(|(at, _)| !continues_a_path(code, *at)) {
            let rest = &code[at + root.len()..];
            found.extend(first_names(rest).into_iter().map(|name| (source.line_of(at), name)));
        }
    }
    found
}

/// The first name of a path, or of each path of a group `{a::b, c}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn wrong_crates(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    let code = source.shipped();
    let foreign = CRATES.iter().filter(|(_, rooms)| !rooms.contains(&module)).flat_map(|(names, _)| names.iter());
    let mut wrong = Vec::new();
    for name in foreign {
        let begins_path = |at: usize| {
            let after = &code[at + name.len()..];
            let is_whole = after.starts_with("::") || after.starts_with(" as ") || after.starts_with(';');
            let is_crate =
                !continues_a_path(code, at) || code[..at].strip_suffix("::").is_some_and(|before| before.ends_with([' ', '<', '(', '&']));
            is_whole && is_crate
        };
        let places = code.match_indices(name).filter(|(at, _)| begins_path(*at));
        wrong.extend(places.map(|(at, _)| format!("{}:{}: {module} may not name {name}", source.path.display(), source.line_of(at))));
    }
    wrong
}

/// Whether what begins at `at` is the middle of a name, a path or a field.
fn continues_a_path(code: &str, at: usize) -> bool {
    code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '$'))
}

fn wrong_files(source: &Source) -> Vec<String> {
    let (path, lines) = (source.path.display(), source.text.lines().count());
    let stem = source.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let mut wrong = Vec::new();
    if !source.text.starts_with("//! ") {
        wrong.push(format!("{path}: opens with no `//!`: say what the room is, what goes in and out, and what it must not know"));
    }
    if lines > LINES_MAX {
        wrong.push(format!("{path}: {lines} lines; more than {LINES_MAX} are two rooms"));
    }
    if EMPTY_NAMES.contains(&stem) {
        wrong.push(format!("{path}: the name says nothing"));
    }
    wrong
}

fn unexplained_unsafe(source: &Source) -> Vec<String> {
    let code: Vec<&str> = source.code.lines().collect();
    let comments: Vec<&str> = source.comments.lines().collect();
    let is_unsafe = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let explained = |at: usize| {
        let from = at.saturating_sub(SAFETY_LINES_MAX);
        comments[from..=at.min(comments.len() - 1)].iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
    };
    let wrong = code.iter().enumerate().filter(|(at, line)| is_unsafe(line) && !explained(*at));
    wrong.map(|(at, _)| format!("{}:{}", source.path.display(), at + 1)).collect()
}

fn lines_with(source: &Source, part: &str, words: &[&str]) -> Vec<String> {
    let wrong = part.lines().enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
    wrong.map(|(at, line)| format!("{}:{}: {}", source.path.display(), at + 1, line.trim())).collect()
}

/// Splits a source into its code and its comments; each keeps the other's place as blanks.
fn separate(text: &str) -> (String, String) {
    let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_name = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (length, is_comment) = comment_length(rest).map_or_else(|| (literal_length(rest, after_name), false), |length| (length, true));
        let length = if length > 0 { length } else { first.len_utf8() };
        let (taken, remaining) = rest.split_at(length);
        let is_code = !is_comment && literal_length(rest, after_name) == 0;
        for c in taken.chars() {
            code.push(if is_code || c == '\n' { c } else { ' ' });
            comments.push(if is_comment || c == '\n' { c } else { ' ' });
        }
        rest = remaining;
    }
    (code, comments)
}

fn comment_length(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        let step = if here.starts_with("/*") || here.starts_with("*/") { 2 } else { here.chars().next().map_or(1, char::len_utf8) };
        depth = if here.starts_with("/*") {
            depth + 1
        } else if here.starts_with("*/") {
            depth - 1
        } else {
            depth
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// How long the string or character is that begins here; 0 when none does.
fn literal_length(rest: &str, after_name: bool) -> usize {
    let raw = rest.trim_start_matches(['b', 'c']);
    let hashes = raw.strip_prefix('r').map(|hashed| hashed.len() - hashed.trim_start_matches('#').len());
    if let Some(hashes) = hashes.filter(|hashes| !after_name && raw[1 + hashes..].starts_with('"')) {
        let open = rest.len() - raw.len() + 2 + hashes;
        let close = format!("\"{}", "#".repeat(hashes));
        return rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len());
    }
    if rest.starts_with('"') {
        return quoted_length(rest, '"');
    }
    // A lifetime has no closing quote; a character has one after one character or an escape.
    let is_character = rest.starts_with("'\\") || rest.chars().nth(2).is_some_and(|third| rest.starts_with('\'') && third == '\'');
    if is_character { quoted_length(rest, '\'') } else { 0 }
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

fn all_sources() -> Vec<Source> {
    let mut all: Vec<Source> = ["src", "kernels", "tests", "examples", "benches"].into_iter().flat_map(sources).collect();
    all.push(Source::new(Path::new("build.rs"), fs::read_to_string(package().join("build.rs")).unwrap()));
    all
}

/// Every `.rs` file below `folder`, by its path from the package's root.
fn sources(folder: &str) -> Vec<Source> {
    let (mut found, mut folders) = (Vec::new(), vec![package().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(Source::new(path.strip_prefix(package()).unwrap(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn assert_clean(rule: &str, wrong: impl IntoIterator<Item = String>) {
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{rule}: {} places\n{}", wrong.len(), wrong.join("\n"));
}
