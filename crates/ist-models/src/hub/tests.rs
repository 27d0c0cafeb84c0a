//! The hub's client against a small server of this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::cache::Cache;
use super::client::{Client, Fault, HubSettings};
use super::source::HubModel;
use super::token::Token;

/// A request as the server read it.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What the server does.
enum Reply {
    /// Sends status, headers and body.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// Sends a head that promises so many bytes and these of them, and then nothing.
    Stall(usize, Vec<u8>),
    /// Sends a head and then a byte now and then.
    Trickle(usize),
    /// Says nothing.
    Silence,
}

struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn new(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (reply, seen) = (Arc::new(reply), Arc::clone(&asked));
        // Both end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (reply, seen) = (Arc::clone(&reply), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream.unwrap(), &*reply, &seen));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, reply: &dyn Fn(&Asked) -> Reply, seen: &Mutex<Vec<Asked>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let mut words = first.split(' ');
    let [method, path] = [words.next().unwrap(), words.next().unwrap()].map(str::to_owned);
    let header = |line: String| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let head = lines.map(Result::unwrap).take_while(|line| !line.is_empty());
    let asked = Asked { method, path, headers: head.map(header).collect() };
    seen.lock().unwrap().push(asked.clone());
    answer(stream, &asked, reply(&asked));
}

fn answer(mut stream: TcpStream, asked: &Asked, reply: Reply) {
    let long = Duration::from_secs(20);
    match reply {
        Reply::Answer(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
            for (name, value) in headers {
                write!(head, "{name}: {value}\r\n").unwrap();
            }
            write!(head, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            if asked.method != "HEAD" {
                stream.write_all(&body).unwrap();
            }
        }
        Reply::Stall(length, body) => {
            let head = format!("HTTP/1.1 200 X\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            std::thread::sleep(long);
        }
        Reply::Trickle(length) => {
            let head = format!("HTTP/1.1 200 X\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Reply::Silence => std::thread::sleep(long),
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The weights' bytes.
fn weights() -> Vec<u8> {
    (0..5000u32).map(|n| (n % 251) as u8).collect()
}

/// A hub with one model whose weights lie in a storage of another server.
fn hub(storage: String) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    move |asked| {
        let name = asked.path.rsplit('/').next().unwrap();
        let tags = headers(&[("X-Repo-Commit", "abc123"), ("ETag", "\"tag-of-config\"")]);
        let weights = weights();
        match name {
            "config.json" => Reply::Answer(200, tags, b"{}".to_vec()),
            "model.safetensors" => {
                let moved = headers(&[
                    ("X-Repo-Commit", "abc123"),
                    ("X-Linked-ETag", &format!("\"{}\"", digest(&weights))),
                    ("X-Linked-Size", &weights.len().to_string()),
                    ("Location", &format!("{storage}/blob?signature=%2B")),
                ]);
                Reply::Answer(302, moved, b"moved".to_vec())
            }
            _ => Reply::Answer(404, headers(&[("X-Error-Code", "EntryNotFound")]), Vec::new()),
        }
    }
}

/// A storage that knows ranges.
fn storage(bytes: Vec<u8>) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    move |asked| match asked.header("range") {
        Some(range) => {
            let from: usize =
                range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
            Reply::Answer(206, Vec::new(), bytes[from..].to_vec())
        }
        None => Reply::Answer(200, Vec::new(), bytes.clone()),
    }
}

struct Case {
    folder: tempfile::TempDir,
    endpoint: String,
    token: Option<&'static str>,
    silence: Duration,
}

impl Case {
    fn new(endpoint: &str) -> Self {
        let (folder, silence) = (tempfile::tempdir().unwrap(), Duration::from_secs(10));
        Self { folder, endpoint: endpoint.to_owned(), token: Some("hf_secret"), silence }
    }

    fn source(&self) -> HubModel<'static> {
        let token = self.token.and_then(|token| Token::new(token, "HF_TOKEN").unwrap());
        let settings =
            HubSettings { endpoint: self.endpoint.clone(), token, silence: self.silence };
        let cache = Cache::new(self.folder.path().to_owned()).model("org/name", "main");
        HubModel { client: Client::new(settings).unwrap(), cache, id: "org/name", revision: "main" }
    }

    fn fetch(&self) -> Result<std::path::PathBuf, Fault> {
        self.source().fetch(&mut |_| {})
    }

    fn fault(&self) -> String {
        let message = String::from(self.fetch().unwrap_err());
        assert!(!message.contains("hf_secret"), "{message}");
        message
    }

    fn blobs(&self) -> std::path::PathBuf {
        self.folder.path().join("models--org--name/blobs")
    }
}

#[test]
fn the_token_reaches_the_hub_and_is_not_sent_along_to_another_server() {
    let store = Server::new(storage(weights()));
    let server = Server::new(hub(store.address.clone()));
    let case = Case::new(&server.address);
    let folder = case.fetch().unwrap();
    assert!(folder.ends_with("snapshots/abc123"));
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights());
    let asked = server.asked();
    assert!(asked.len() > 4);
    for request in &asked {
        assert_eq!(request.header("authorization"), Some("Bearer hf_secret"), "{request:?}");
    }
    assert_eq!(store.asked().len(), 1);
    assert_eq!(store.asked()[0].header("authorization"), None);
    assert_eq!(store.asked()[0].path, "/blob?signature=%2B");
}

#[test]
fn all_files_are_of_the_commit_of_the_first() {
    let store = Server::new(storage(weights()));
    let server = Server::new(hub(store.address));
    Case::new(&server.address).fetch().unwrap();
    let asked = server.asked();
    let of_config = |request: &&Asked| request.path.ends_with("/config.json");
    assert!(asked.iter().filter(of_config).all(|request| request.path.contains("/main/")));
    assert!(asked.iter().filter(|a| !of_config(a)).all(|a| a.path.contains("/abc123/")));
}

#[cfg(unix)]
#[test]
fn what_was_fetched_lies_in_the_cache_as_other_programs_expect_it() {
    let store = Server::new(storage(weights()));
    let server = Server::new(hub(store.address));
    let case = Case::new(&server.address);
    let folder = case.fetch().unwrap();
    let link = std::fs::read_link(folder.join("model.safetensors")).unwrap();
    assert_eq!(link.to_str(), Some(format!("../../blobs/{}", digest(&weights())).as_str()));
    assert_eq!(case.source().cache.file("config.json"), Some(folder.join("config.json")));
    assert_eq!(super::source::cached(&case.source().cache), Some(folder));
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let server = Server::new(|_| Reply::Silence);
    let case = Case { silence: Duration::from_millis(200), ..Case::new(&server.address) };
    let started = Instant::now();
    let fault = case.fault();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(fault.contains("config.json") && fault.contains("nothing came for 0.2 s"), "{fault}");
}

#[test]
fn a_server_that_falls_silent_or_trickles_within_a_file_is_given_up() {
    for trickles in [false, true] {
        let store = Server::new(move |_| {
            if trickles { Reply::Trickle(5000) } else { Reply::Stall(5000, vec![0; 100]) }
        });
        let server = Server::new(hub(store.address));
        let case = Case { silence: Duration::from_millis(300), ..Case::new(&server.address) };
        let started = Instant::now();
        let fault = case.fault();
        assert!(started.elapsed() < Duration::from_secs(10));
        let expected = if trickles { "less than 1024 bytes came" } else { "nothing came" };
        assert!(fault.contains("model.safetensors") && fault.contains(expected), "{fault}");
    }
}

#[test]
fn a_refusal_says_what_to_do() {
    let cases = [
        (401, "", None, "set HF_TOKEN"),
        (401, "", Some("hf_secret"), "the token of HF_TOKEN is not accepted"),
        (403, "GatedRepo", None, "accept its terms there and set HF_TOKEN"),
        (403, "GatedRepo", Some("hf_secret"), "accept the model's terms there"),
        (404, "RepoNotFound", Some("hf_secret"), "check the name"),
        (404, "RevisionNotFound", None, "no revision main"),
        (404, "EntryNotFound", None, "has no file config.json"),
        (429, "", None, "too many requests"),
        (503, "", None, "answers 503"),
    ];
    for (status, code, token, expected) in cases {
        let server =
            Server::new(move |_| Reply::Answer(status, headers(&[("X-Error-Code", code)]), vec![]));
        let fault = Case { token, ..Case::new(&server.address) }.fault();
        assert!(fault.contains(expected) && fault.contains("config.json"), "{status} {fault}");
    }
}

#[test]
fn a_file_that_was_cut_off_goes_on_and_one_that_is_wrong_goes() {
    let store = Server::new(storage(weights()));
    let server = Server::new(hub(store.address.clone()));
    let case = Case::new(&server.address);
    std::fs::create_dir_all(case.blobs()).unwrap();
    let partial = case.blobs().join(format!("{}.incomplete", digest(&weights())));
    std::fs::write(&partial, vec![7; 100]).unwrap();
    let fault = case.fault();
    assert!(fault.contains("SHA-256") && !partial.exists(), "{fault}");
    std::fs::write(&partial, &weights()[..1234]).unwrap();
    let folder = case.fetch().unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<_> =
        store.asked().iter().map(|asked| asked.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [Some("bytes=100-".to_owned()), Some("bytes=1234-".to_owned())]);
    assert!(!partial.exists());
}

#[test]
fn a_file_that_another_process_fetches_is_left_to_it() {
    let store = Server::new(storage(weights()));
    let server = Server::new(hub(store.address));
    let case = Case::new(&server.address);
    std::fs::create_dir_all(case.blobs()).unwrap();
    let partial = case.blobs().join(format!("{}.incomplete", digest(&weights())));
    let held = std::fs::File::create(partial).unwrap();
    held.lock().unwrap();
    assert!(case.fault().contains("another process is fetching it"));
}

#[test]
fn redirects_end() {
    let server = Server::new(|asked: &Asked| {
        Reply::Answer(307, headers(&[("Location", &asked.path)]), Vec::new())
    });
    assert!(Case::new(&server.address).fault().contains("more than 10 times"));
}
