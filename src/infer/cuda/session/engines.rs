//! Keeps the engines that TensorRT built: one folder for a model, a GPU and everything else that an engine depends on.
//!
//! In: a folder, a [`Key`], what opens or builds an engine there. Out: an [`EngineFolder`] that holds a whole engine, or nothing yet.
//! Drops: folders of the same model and GPU with another key that no process runs, and folders that are not as they were left; each is
//! logged.
//! Must not know: sessions, what an engine is.
//!
//! An engine is code that the GPU's process runs: folders are readable and writable for nobody else, and lie where nobody
//! else can put one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::GraphsError;

/// Grows whenever a folder is laid out otherwise.
const LAYOUT: u32 = 1;
/// Holds the key in words. It is written first. Whoever runs the engine holds a shared lock on it.
const KEY_FILE: &str = "key";
/// Holds the hashes of all other files. It is written last, so it stands for a whole folder.
const SEAL_FILE: &str = "SHA256SUMS";
/// Held by the process that builds or looks.
const LOCK_FILE: &str = ".lock";
/// Between two looks whether it is free.
const LOCK_WAIT: Duration = Duration::from_millis(20);
/// How many digits of a hash a folder's name has.
const DIGITS: usize = 16;
/// Rights of others to change a folder, and to do anything with it.
const WRITTEN_BY_OTHERS: u32 = 0o022;
const OPEN_TO_OTHERS: u32 = 0o077;

/// Everything that an engine depends on. With another value of any of it, the engine is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    model: String,
    gpu: String,
    words: String,
}

/// What a [`Key`] is made of.
pub(super) struct KeyParts<'a> {
    /// The manifest's name of the model.
    pub(super) model: &'a str,
    /// SHA-256 of the graph that is run.
    pub(super) graph_sha256: &'a str,
    /// The GPU's name and compute capability.
    pub(super) gpu: &'a str,
    /// The version of TensorRT.
    pub(super) tensorrt: &'a str,
    /// The manifest's name of the runtime library.
    pub(super) runtime: &'a str,
    /// The arithmetic.
    pub(super) precision: &'a str,
    /// The shapes.
    pub(super) profile: &'a str,
}

/// A GPU's words with its memory to two gigabytes: drivers count it a little otherwise, and the engine is the same; cards of one name
/// with another memory have other processors.
pub(super) fn roughly(gpu: &str) -> String {
    let memory = gpu.strip_suffix(" MiB").and_then(|words| words.rsplit_once(", "));
    let rounded = memory.and_then(|(before, mib)| Some((before, (mib.parse::<u64>().ok()? + 1_024) / 2_048 * 2)));
    rounded.map_or_else(|| gpu.to_owned(), |(before, gib)| format!("{before}, {gib} GiB"))
}

impl Key {
    pub(super) fn new(parts: &KeyParts<'_>) -> Self {
        let KeyParts { model, graph_sha256, gpu, tensorrt, runtime, precision, profile } = *parts;
        // Whatever a manifest calls a model, its folder stays below the cache.
        let model: String = model.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
        let words = format!(
            "layout {LAYOUT}\nmodel {model}\ngraph {graph_sha256}\ngpu {gpu}\ntensorrt {tensorrt}\nruntime {runtime}\nprecision {precision}\nprofile {profile}\n"
        );
        Self { model, gpu: gpu.to_owned(), words }
    }

    fn folder_name(&self) -> String {
        format!("engine-{}-{}", self.model, &sha256_hex(self.words.as_bytes())[..DIGITS])
    }

    /// Why the folder called `name`, whose key file says `words`, is of no use to anybody any more; `None` leaves it.
    /// Other models and other GPUs keep theirs.
    pub(super) fn outdates(&self, name: &str, words: Option<&str>) -> Option<&'static str> {
        let own = self.folder_name();
        let digits = name.strip_prefix(&own[..own.len() - DIGITS])?;
        if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) || name == own {
            return None;
        }
        match words {
            None => Some("it was never finished"),
            Some(words) if words.lines().any(|line| line.strip_prefix("gpu ") == Some(&self.gpu)) => {
                Some("the model, TensorRT, the precision or the batch size has changed since")
            }
            Some(_) => None,
        }
    }
}

/// The folder of one key, held against other processes until it is dropped.
#[derive(Debug)]
pub(super) struct EngineFolder {
    path: PathBuf,
    words: String,
    /// Whether an engine is there that is as it was left.
    pub(super) is_warm: bool,
    /// Unlocked when it is closed.
    _lock: File,
}

impl EngineFolder {
    /// The folder of `key` below `root`, which is made where it is not there. What nobody can use any more is removed. Whoever
    /// holds the folders is waited for, at most for `wait_max` where there is one.
    pub(super) fn open(root: &Path, key: &Key, wait_max: Option<Duration>) -> Result<Self, GraphsError> {
        make_private(root)?;
        refuse_shared(root)?;
        let lock = locked(root, wait_max)?;
        remove_outdated(root, key)?;
        let path = root.join(key.folder_name());
        if aside(&path).exists() {
            // Whoever put it aside was ended before another one was built.
            bring_back(&path)?;
        }
        let mut is_warm = false;
        if path.exists() {
            match doubt(&path, &key.words) {
                None => is_warm = true,
                Some(doubt) => remove(&path, &doubt)?,
            }
        }
        let folder = Self { path, words: key.words.clone(), is_warm, _lock: lock };
        if !is_warm {
            folder.begin()?;
        }
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps other processes, whose settings are others, from removing the engine while what is answered is held.
    pub(super) fn in_use(&self) -> Result<File, GraphsError> {
        let path = self.path.join(KEY_FILE);
        // Only removers lock it otherwise, and for no longer than they hold the lock that this folder has.
        let held = File::open(&path).and_then(|file| file.lock_shared().map(|()| file));
        held.map_err(|source| GraphsError::Cache { path, source })
    }

    fn begin(&self) -> Result<(), GraphsError> {
        make_private(&self.path)?;
        let file = self.path.join(KEY_FILE);
        fs::write(&file, &self.words).map_err(|source| GraphsError::Cache { path: file, source })
    }

    /// Puts what is there aside, because of `reason`, so that an engine can be built anew: only where that succeeds is the old one of
    /// no use.
    pub(super) fn set_aside(&mut self, reason: &str) -> Result<(), GraphsError> {
        tracing::warn!(folder = %self.path.display(), reason, "a kept engine is put aside, and another one is built");
        let moved = fs::rename(&self.path, aside(&self.path));
        moved.map_err(|source| GraphsError::Cache { path: self.path.clone(), source })?;
        self.is_warm = false;
        self.begin()
    }

    /// Another engine has taken its place.
    pub(super) fn drop_what_was_set_aside(&self) {
        if let Err(error) = remove(&aside(&self.path), "another engine was built") {
            tracing::warn!(%error, "an old engine could not be removed");
        }
    }

    /// Brings back what was put aside: no other engine could be built either.
    pub(super) fn bring_back(&mut self) -> Result<(), GraphsError> {
        bring_back(&self.path)?;
        self.is_warm = true;
        Ok(())
    }

    /// Writes down how everything is now.
    pub(super) fn seal(&mut self) -> Result<(), GraphsError> {
        let hashes = hashes(&self.path).map_err(|source| GraphsError::Cache { path: self.path.clone(), source })?;
        let lines: String = hashes.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
        let (file, partial) = (self.path.join(SEAL_FILE), self.path.join(".partial"));
        let written = fs::write(&partial, lines).and_then(|()| fs::rename(&partial, &file));
        written.map_err(|source| GraphsError::Cache { path: file, source })?;
        self.is_warm = true;
        Ok(())
    }
}

/// What `open` makes of the engine that `cache` keeps, or of one that it builds where none is kept. One that is kept and cannot be used
/// goes where another one could be built, which is kept in its place. Where none may be built, that of `model` is taken or nothing:
/// whoever waits in the midst of work is recognised by nobody meanwhile.
pub(super) fn kept_or_built<E>(
    mut cache: Option<&mut EngineFolder>,
    (model, may_build): (&str, bool),
    open: impl Fn(Option<&EngineFolder>) -> Result<E, GraphsError>,
) -> Result<E, GraphsError> {
    let was_warm = cache.as_deref().is_some_and(|cache| cache.is_warm);
    if !may_build {
        return if was_warm { open(cache.as_deref()) } else { Err(GraphsError::NotKept(model.to_owned())) };
    }
    let mut opened = open(cache.as_deref());
    if let (true, Some(cache), Err(error)) = (was_warm, &mut cache, &opened) {
        // It may be the engine, or a lack of memory, or a library that went: the engine goes only where another one opens.
        cache.set_aside(&format!("it cannot be used: {error}"))?;
        let anew = open(Some(cache));
        match anew {
            Ok(_) => cache.drop_what_was_set_aside(),
            Err(_) => cache.bring_back()?,
        }
        opened = anew;
    }
    if let (Some(cache), Ok(_)) = (&mut cache, &opened)
        && let Err(error) = cache.seal()
    {
        // The engine runs. Without its seal it is built anew at the next start.
        tracing::warn!(%error, "an engine runs and could not be kept");
    }
    opened
}

/// Where an engine waits until another one was built.
fn aside(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!("{name}.aside"))
}

/// Puts what waits aside back in its place.
fn bring_back(folder: &Path) -> Result<(), GraphsError> {
    if folder.exists() {
        remove(folder, "it was never finished")?;
    }
    fs::rename(aside(folder), folder).map_err(|source| GraphsError::Cache { path: folder.into(), source })
}

/// Makes a folder that nobody else can look into, where there is none.
fn make_private(path: &Path) -> Result<(), GraphsError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| GraphsError::Cache { path: path.into(), source })
}

/// Where others can write, an engine may be anybody's. The rights of a folder that was there are its owner's affair.
fn refuse_shared(root: &Path) -> Result<(), GraphsError> {
    let refused = |source| Err(GraphsError::Cache { path: root.into(), source });
    match fs::metadata(root) {
        Err(source) => refused(source),
        Ok(found) if found.mode() & WRITTEN_BY_OTHERS != 0 => {
            refused(io::Error::other("other users may write there, and an engine is code that the daemon runs"))
        }
        Ok(found) if ![0, rustix::process::geteuid().as_raw()].contains(&found.uid()) => {
            refused(io::Error::other("it is another user's, and an engine is code that the daemon runs"))
        }
        Ok(_) => Ok(()),
    }
}

fn locked(root: &Path, wait_max: Option<Duration>) -> Result<File, GraphsError> {
    let path = root.join(LOCK_FILE);
    let failed = |source| GraphsError::Cache { path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    let begin = Instant::now();
    loop {
        match (file.try_lock(), wait_max) {
            (Ok(()), _) => return Ok(file),
            (Err(fs::TryLockError::Error(error)), _) => return Err(failed(error)),
            (Err(fs::TryLockError::WouldBlock), None) => {
                tracing::info!(folder = %root.display(), "another process builds engines there; waiting for it");
                file.lock().map_err(failed)?;
                return Ok(file);
            }
            // Another session that takes what is kept is done in a moment; whoever builds engines is not.
            (Err(fs::TryLockError::WouldBlock), Some(wait_max)) if begin.elapsed() < wait_max => std::thread::sleep(LOCK_WAIT),
            (Err(fs::TryLockError::WouldBlock), Some(_)) => return Err(GraphsError::Busy(root.into())),
        }
    }
}

/// Whether a process runs the engine of a folder.
fn is_in_use(folder: &Path) -> bool {
    File::open(folder.join(KEY_FILE)).is_ok_and(|key| matches!(key.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

fn remove_outdated(root: &Path, key: &Key) -> Result<(), GraphsError> {
    let entries = fs::read_dir(root).map_err(|source| GraphsError::Cache { path: root.into(), source })?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let words = fs::read_to_string(entry.path().join(KEY_FILE)).ok();
        if let Some(reason) = name.to_str().and_then(|name| key.outdates(name, words.as_deref())) {
            if is_in_use(&entry.path()) {
                tracing::info!(folder = %entry.path().display(), reason, "a kept engine does not fit here, and stays, since another process runs it");
            } else {
                remove(&entry.path(), reason)?;
            }
        }
    }
    Ok(())
}

fn remove(folder: &Path, reason: &str) -> Result<(), GraphsError> {
    tracing::warn!(folder = %folder.display(), reason, "a kept engine does not fit and is removed");
    fs::remove_dir_all(folder).map_err(|source| GraphsError::Cache { path: folder.into(), source })
}

/// What is wrong with a folder; `None` where everything is as it was sealed and the key is `words`.
fn doubt(folder: &Path, words: &str) -> Option<String> {
    let is_private = |found: fs::Metadata| found.mode() & OPEN_TO_OTHERS == 0 && found.uid() == rustix::process::geteuid().as_raw();
    if !fs::symlink_metadata(folder).is_ok_and(is_private) {
        return Some("other users may have changed it".into());
    }
    let Ok(seal) = fs::read_to_string(folder.join(SEAL_FILE)) else { return Some("it was never finished".into()) };
    let sealed: BTreeMap<String, String> =
        seal.lines().filter_map(|line| line.split_once("  ")).map(|(hash, name)| (name.to_owned(), hash.to_owned())).collect();
    match hashes(folder) {
        Err(error) => return Some(format!("it cannot be read: {error}")),
        Ok(found) if found != sealed => return Some("a file in it was altered, lost or added".into()),
        Ok(_) => {}
    }
    let is_own = fs::read_to_string(folder.join(KEY_FILE)).is_ok_and(|found| found == words);
    (!is_own).then(|| "it is of another key".into())
}

/// The hash of each file but the seal.
fn hashes(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut hashes = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != SEAL_FILE {
            hashes.insert(name.clone(), file_sha256(&folder.join(&name))?);
        }
    }
    Ok(hashes)
}

/// SHA-256 of a file, lower-case hex.
pub(super) fn file_sha256(path: &Path) -> io::Result<String> {
    fs::read(path).map(|bytes| sha256_hex(&bytes))
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
