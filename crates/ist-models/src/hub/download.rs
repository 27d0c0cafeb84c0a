//! One file of the hub into the cache: whole, with the digest that the hub gives, or not at all.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use ureq::http::{HeaderMap, StatusCode};

use super::cache::ModelCache;
use super::client::{Client, Fault, FileOfHub};

/// How far a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download<'a> {
    /// Its name.
    pub file: &'a str,
    /// Bytes that are here.
    pub done: u64,
    /// All of its bytes, where the hub says how many.
    pub total: Option<u64>,
}

/// Bytes that must come in the time that a server may be silent: less than that is no download.
const LEAST: u64 = 1024;

/// What the hub says of a file.
struct Described {
    tag: String,
    commit: String,
    size: Option<u64>,
}

/// Fetches a file, unless it is there. Returns its path and the commit it is of.
pub(super) fn fetch(
    client: &Client,
    cache: &ModelCache,
    file: &FileOfHub,
    progress: &mut dyn FnMut(Download),
) -> Result<(PathBuf, String), Fault> {
    let other = |message: String| Fault::Other(format!("{}: {message}", file.name));
    let said = describe(&client.describe(file)?).map_err(other)?;
    let blob = cache.blob(&said.tag);
    let is_there = blob.exists() || cache.snapshot(&said.commit).join(&file.name).exists();
    if !is_there {
        write_blob(client, file, &said, &blob, progress)?;
    }
    let path = cache.link(&said.tag, &said.commit, &file.name);
    let path = path.and_then(|path| cache.note_commit(&said.commit).map(|()| path));
    Ok((path.map_err(|error| other(format!("the cache: {error}")))?, said.commit))
}

/// Reads the headers by which the hub tells a file's tag, commit and size.
fn describe(headers: &HeaderMap) -> Result<Described, String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let missing =
        |what: &str| format!("the answer has no {what}; is HF_ENDPOINT a Hugging Face hub?");
    let tag = header("x-linked-etag").or_else(|| header("etag")).ok_or_else(|| missing("etag"))?;
    let commit = header("x-repo-commit").ok_or_else(|| missing("x-repo-commit"))?;
    let tag = tag.trim_start_matches("W/").trim_matches('"');
    // Both become names of files.
    if let Some(name) = [tag, commit].into_iter().find(|name| !is_plain_name(name)) {
        return Err(format!("the answer names it `{}`, which is no name", name.escape_debug()));
    }
    let linked = header("x-linked-size");
    // The length of an answer that sends us on is its own and not the file's.
    let own = header("content-length").filter(|_| headers.get("location").is_none());
    let size = linked.or(own).and_then(|size| size.parse().ok());
    Ok(Described { tag: tag.to_owned(), commit: commit.to_owned(), size })
}

fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

/// Downloads a blob, going on with what an earlier process left of it.
fn write_blob(
    client: &Client,
    file: &FileOfHub,
    said: &Described,
    blob: &Path,
    progress: &mut dyn FnMut(Download),
) -> Result<(), Fault> {
    let other = |message: String| Fault::Other(format!("{}: {message}", file.name));
    let failed = |error: io::Error| other(format!("the cache: {error}"));
    if let Some(folder) = blob.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let partial = blob.with_file_name(format!("{}.incomplete", said.tag));
    let mut target = open_alone(&partial).map_err(failed)?;
    let Some(target) = &mut target else {
        return Err(other(
            "another process is fetching it; try again when that has ended".to_owned(),
        ));
    };
    // Another process may have been faster.
    if blob.exists() {
        return Ok(());
    }
    let mut from = target.metadata().map_err(failed)?.len();
    if said.size.is_some_and(|size| from >= size) {
        // More than a part of it: not what it is named after.
        from = 0;
    }
    let mut response = client.read(file, from)?;
    if response.status() != StatusCode::PARTIAL_CONTENT {
        from = 0;
    }
    target.set_len(from).map_err(failed)?;
    let mut copy = Copy { target, digest: Sha256::new(), done: 0, silence: client.silence() };
    copy.take_in(from).map_err(failed)?;
    let mut body = response.body_mut().as_reader();
    copy.all(&mut body, |done| progress(Download { file: &file.name, done, total: said.size }))
        .map_err(|error| other(client.reason(&ureq::Error::from(error))))?;
    copy.is_whole(said).map_err(|problem| {
        // What is wrong now would be wrong again.
        let _ = std::fs::remove_file(&partial);
        other(problem)
    })?;
    copy.target.sync_all().map_err(failed)?;
    std::fs::rename(&partial, blob).map_err(failed)
}

/// Opens the file of a part for this process alone; `None` where another process has it.
fn open_alone(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(None),
        // On a file system without locks two downloads at once would write the same bytes.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// Bytes on their way into a file.
struct Copy<'a> {
    target: &'a mut File,
    digest: Sha256,
    done: u64,
    silence: Duration,
}

impl Copy<'_> {
    /// Reads what is there already, for its digest.
    fn take_in(&mut self, bytes: u64) -> io::Result<()> {
        self.target.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; 1 << 16];
        while self.done < bytes {
            let count = self.target.read(&mut buffer)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.digest.update(&buffer[..count]);
            self.done += count as u64;
        }
        Ok(())
    }

    /// Writes everything that comes. A server that sends next to nothing is as silent as one that
    /// sends nothing.
    fn all(&mut self, body: &mut impl Read, mut progress: impl FnMut(u64)) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut since = Instant::now();
        let mut before = self.done;
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.target.write_all(&buffer[..count])?;
            self.digest.update(&buffer[..count]);
            self.done += count as u64;
            progress(self.done);
            if since.elapsed() > self.silence {
                if self.done - before < LEAST {
                    let message = format!("less than {LEAST} bytes came in {:?}", self.silence);
                    return Err(io::Error::other(message));
                }
                since = Instant::now();
                before = self.done;
            }
        }
    }

    /// Compares with what the hub said. The tag of a large file is its SHA-256.
    fn is_whole(&self, said: &Described) -> Result<(), String> {
        if let Some(size) = said.size.filter(|size| *size != self.done) {
            let done = self.done;
            return Err(format!("{done} bytes came, expected {size}; try again"));
        }
        let is_digest = said.tag.len() == 64 && said.tag.bytes().all(|b| b.is_ascii_hexdigit());
        let digest = self.digest.clone().finalize();
        let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        if is_digest && !said.tag.eq_ignore_ascii_case(&found) {
            return Err(format!("its SHA-256 is {found}, expected {}; try again", said.tag));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_is_a_path_is_refused() {
        for (tag, commit) in [("../x", "abc"), ("abc", "../../x"), (".hidden", "abc"), ("", "abc")]
        {
            let mut headers = HeaderMap::new();
            headers.insert("etag", format!("\"{tag}\"").parse().unwrap());
            headers.insert("x-repo-commit", commit.parse().unwrap());
            assert!(describe(&headers).is_err(), "{tag} {commit}");
        }
    }
}
