//! The hub, as commands reach it: a small server of this machine stands in for it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::Workbench;

/// A server that answers everything with that status, or nothing without one; what it was asked,
/// line by line.
fn server(status: Option<u16>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        let mut silent: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head = lines.map(Result::unwrap).take_while(|line| !line.is_empty());
            head.for_each(|line| sender.send(line).unwrap_or_default());
            match status {
                Some(status) => {
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                    );
                    stream.write_all(answer.as_bytes()).unwrap();
                }
                None => silent.push(stream),
            }
        }
    });
    (address, asked)
}

fn generate(bench: &Workbench, address: &str, variables: &[(&str, &str)]) -> String {
    let mut command = bench.ist(&["generate", "--model", "org/name", "--prompt", "a"]);
    for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"] {
        command.env_remove(variable);
    }
    command
        .env_remove("HF_HUB_CACHE")
        .env("HF_HOME", bench.path("hub"))
        .env("HF_ENDPOINT", address);
    // The server is on this machine, and a proxy is not asked for it.
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("org/name") && !message.contains("hf_secret"), "{message}");
    message
}

/// Variables of the environment, by name.
type Variables<'a> = &'a [(&'a str, &'a str)];

#[test]
fn the_token_is_found_where_the_hub_package_looks_for_it() {
    let bench = Workbench::new("");
    std::fs::create_dir(bench.path("hub")).unwrap();
    bench.write("token.txt", "hf_secret_of_path\n");
    let path = bench.path("token.txt");
    let cases: [(Variables, Option<&str>); 5] = [
        (&[], None),
        (&[("HF_TOKEN", "hf_secret")], Some("hf_secret")),
        (&[("HF_TOKEN", ""), ("HUGGING_FACE_HUB_TOKEN", "hf_secret_2")], Some("hf_secret_2")),
        (&[("HF_TOKEN_PATH", path.to_str().unwrap())], Some("hf_secret_of_path")),
        (&[("HF_TOKEN", "hf_secret"), ("HUGGING_FACE_HUB_TOKEN", "no")], Some("hf_secret")),
    ];
    for (variables, expected) in cases {
        let (address, asked) = server(Some(401));
        let message = generate(&bench, &address, variables);
        let expected_words = if expected.is_some() { "is not accepted" } else { "set HF_TOKEN" };
        assert!(message.contains(expected_words), "{message}");
        let lines: Vec<String> = asked.try_iter().collect();
        let header = |line: &&String| line.to_ascii_lowercase().starts_with("authorization:");
        let sent = lines.iter().find(header).map(|line| line["authorization:".len()..].trim());
        assert_eq!(sent, expected.map(|token| format!("Bearer {token}")).as_deref());
    }
    // The file that a login leaves in the hub's home.
    bench.write("hub/token", "hf_secret_of_home");
    let (address, asked) = server(Some(401));
    generate(&bench, &address, &[]);
    assert!(asked.try_iter().any(|line| line.ends_with("Bearer hf_secret_of_home")));
}

#[test]
fn a_hub_that_says_nothing_is_given_up() {
    let bench = Workbench::new("");
    let (address, _asked) = server(None);
    let started = Instant::now();
    let message = generate(&bench, &address, &[("HF_HUB_DOWNLOAD_TIMEOUT", "1")]);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(message.contains("nothing came for 1 s"), "{message}");
}

#[test]
fn a_gated_model_says_what_to_do() {
    let bench = Workbench::new("");
    let (address, _asked) = server(Some(403));
    let message = generate(&bench, &address, &[]);
    assert!(message.contains("accept its terms") && message.contains("HF_TOKEN"), "{message}");
    assert!(message.contains(&format!("{address}/org/name")), "{message}");
}
