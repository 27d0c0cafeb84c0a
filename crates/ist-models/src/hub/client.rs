//! Files of the Hugging Face hub over HTTP.
//!
//! Every wait has an end: for a connection, for an answer, for the next bytes of a file. The token
//! goes to the hub alone and not along to the storage that the hub sends us to, which needs none
//! and is another's.

use std::fmt::Write as _;
use std::time::Duration;

use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE};
use ureq::http::{HeaderMap, Method, Request, StatusCode, Uri};
use ureq::{Agent, Body};

use super::token::Token;

/// The hub, where `HF_ENDPOINT` does not name another.
const HUB: &str = "https://huggingface.co";
/// How long a server may say nothing, where `HF_HUB_DOWNLOAD_TIMEOUT` does not say so.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a request may be sent on to another place.
const MOST_REDIRECTS: usize = 10;

type Response = ureq::http::Response<Body>;

/// What is asked of the hub, and how.
#[derive(Clone, Debug)]
pub(crate) struct HubSettings {
    /// Where the hub is.
    pub(crate) endpoint: String,
    /// Who asks.
    pub(crate) token: Option<Token>,
    /// How long a server may say nothing.
    pub(crate) silence: Duration,
}

impl HubSettings {
    /// As the environment says.
    pub(crate) fn from_env() -> Result<Self, String> {
        let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|value| !value.trim().is_empty());
        let silence = match std::env::var("HF_HUB_DOWNLOAD_TIMEOUT") {
            Ok(text) if !text.trim().is_empty() => parse_seconds(&text)?,
            _ => SILENCE,
        };
        let endpoint = endpoint.unwrap_or_else(|| HUB.to_owned());
        Ok(Self { endpoint, token: Token::from_env()?, silence })
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<u64> =
        text.trim().parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        format!(
            "HF_HUB_DOWNLOAD_TIMEOUT is `{}`, expected seconds from 1 to 86400",
            text.escape_debug()
        )
    })
}

/// Why a file was not fetched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The model has no file of that name.
    NoSuchFile(String),
    /// Anything else.
    Other(String),
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NoSuchFile(message) | Fault::Other(message) => message,
        }
    }
}

/// Speaks with the hub.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    endpoint: Uri,
    settings: HubSettings,
}

impl Client {
    /// A client with those settings; nothing is sent yet.
    pub(crate) fn new(settings: HubSettings) -> Result<Self, String> {
        let named = settings.endpoint.trim().trim_end_matches('/').to_owned();
        let endpoint = named.parse::<Uri>().ok().filter(is_http);
        let endpoint = endpoint.ok_or_else(|| {
            format!("HF_ENDPOINT is `{}`, expected an address such as {HUB}", named.escape_debug())
        })?;
        let silence = Some(settings.silence);
        // Redirects are followed here, where it is known which of them may see the token.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("ist/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(silence)
            .timeout_connect(silence)
            .timeout_send_request(silence)
            .timeout_recv_response(silence)
            .timeout_per_read(silence)
            .timeout_per_write(silence);
        Ok(Self { agent: config.build().into(), endpoint, settings })
    }

    /// How long a server may say nothing.
    pub(crate) fn silence(&self) -> Duration {
        self.settings.silence
    }

    /// What the hub says of a file: its headers, and whether the bytes lie elsewhere.
    pub(crate) fn describe(&self, file: &FileOfHub) -> Result<HeaderMap, Fault> {
        let response = self.ask(&Method::HEAD, file, None)?;
        Ok(response.headers().clone())
    }

    /// The bytes of a file from the given one on; the answer says whether it begins there.
    pub(crate) fn read(&self, file: &FileOfHub, from: u64) -> Result<Response, Fault> {
        self.ask(&Method::GET, file, Some(from))
    }

    /// Asks for a file and goes where the answers lead: for its description only within the hub,
    /// which alone knows what commit and tag it has.
    fn ask(&self, method: &Method, file: &FileOfHub, from: Option<u64>) -> Result<Response, Fault> {
        let other = |message: String| Fault::Other(format!("{}: {message}", file.name));
        let mut address: Uri = file
            .address(&self.endpoint)
            .parse()
            .map_err(|error| other(format!("no address can be made of the name: {error}")))?;
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send(method, &address, from).map_err(|e| other(self.reason(&e)))?;
            if !response.status().is_redirection() {
                return self.accept(response, file);
            }
            let next = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = next.and_then(|next| resolve(&address, next));
            let next = next.filter(is_http).ok_or_else(|| {
                other(format!("{} sends us on, and does not say where", shown(&address)))
            })?;
            if address.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(other(format!(
                    "{} sends us to an address without https",
                    shown(&address)
                )));
            }
            if *method == Method::HEAD && !same_server(&next, &self.endpoint) {
                return Ok(response);
            }
            address = next;
        }
        Err(other(format!("sent on more than {MOST_REDIRECTS} times")))
    }

    fn send(
        &self,
        method: &Method,
        address: &Uri,
        from: Option<u64>,
    ) -> Result<Response, ureq::Error> {
        let mut request = Request::builder().method(method).uri(address);
        // The bytes as they are: their number and digest are compared with what the hub says.
        request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(from) = from.filter(|from| *from > 0) {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = &self.settings.token
            && same_server(address, &self.endpoint)
        {
            request = request.header(AUTHORIZATION, token.authorization());
        }
        self.agent.run(request.body(()).map_err(ureq::Error::Http)?)
    }

    /// An error of the network, in words.
    pub(crate) fn reason(&self, error: &ureq::Error) -> String {
        let seconds = self.settings.silence.as_secs_f64();
        match error {
            ureq::Error::Timeout(_) => format!(
                "nothing came for {seconds} s; try again, or set HF_HUB_DOWNLOAD_TIMEOUT to more \
                 seconds"
            ),
            ureq::Error::HostNotFound => format!("{} is not found", shown(&self.endpoint)),
            error => error.to_string(),
        }
    }

    /// The response, if it brings the file; else what to do.
    fn accept(&self, response: Response, file: &FileOfHub) -> Result<Response, Fault> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        let (id, name) = (&file.id, &file.name);
        let page = format!("{}/{id}", shown(&self.endpoint));
        let other = |message: String| Err(Fault::Other(format!("{name}: {message}")));
        match (status, code) {
            (StatusCode::NOT_FOUND, Some("RepoNotFound")) => {
                other(format!("{page} is not there; check the name"))
            }
            (StatusCode::NOT_FOUND, Some("RevisionNotFound")) => {
                other(format!("{page} has no revision {}; check its name", file.revision))
            }
            (StatusCode::NOT_FOUND, _) => {
                Err(Fault::NoSuchFile(format!("{page} has no file {name} at {}", file.revision)))
            }
            (StatusCode::UNAUTHORIZED, _) => match &self.settings.token {
                None => other(format!(
                    "{page} is not there, or is not for everyone; check the name, or set HF_TOKEN \
                     to a token of an \
                     account that may read it"
                )),
                Some(token) => other(format!(
                    "the token of {} is not accepted, or may not read {page}; check the name, and \
                     make a new token",
                    token.origin()
                )),
            },
            (StatusCode::FORBIDDEN, _) => match &self.settings.token {
                None => other(format!(
                    "{page} is not for everyone; accept its terms there and set HF_TOKEN"
                )),
                Some(token) => other(format!(
                    "the account of the token of {} may not read {page}; accept the model's terms \
                     there, or use a \
                     token that may read it",
                    token.origin()
                )),
            },
            (StatusCode::TOO_MANY_REQUESTS, _) => other(
                "the hub has had too many requests from here; wait, or set HF_TOKEN".to_owned(),
            ),
            (status, _) => other(format!("{page} answers {status}")),
        }
    }
}

/// A file of a model at a revision.
#[derive(Clone, Debug)]
pub(crate) struct FileOfHub {
    /// `org/name`.
    pub(crate) id: String,
    /// A branch, a tag or a commit.
    pub(crate) revision: String,
    /// The file's name, with folders.
    pub(crate) name: String,
}

impl FileOfHub {
    fn address(&self, endpoint: &Uri) -> String {
        // A branch may have slashes in its name, which are none of the path.
        let revision = escaped(&self.revision).replace('/', "%2F");
        let (endpoint, id, name) = (shown(endpoint), escaped(&self.id), escaped(&self.name));
        format!("{endpoint}/{id}/resolve/{revision}/{name}")
    }
}

/// Text as a part of an address.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("strings take text");
        }
        out
    })
}

/// An address without the slash that parsing adds at its end.
fn shown(address: &Uri) -> String {
    address.to_string().trim_end_matches('/').to_owned()
}

fn is_http(address: &Uri) -> bool {
    matches!(address.scheme_str(), Some("http" | "https")) && address.host().is_some()
}

/// Whether two addresses are one server: only there may the token be seen.
fn same_server(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().or(if uri.scheme_str() == Some("https") { Some(443) } else { Some(80) })
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    one.scheme_str() == other.scheme_str() && host(one) == host(other) && port(one) == port(other)
}

/// Where a `Location` leads, seen from an address.
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let next: Uri = location.parse().ok()?;
    if next.scheme().is_some() {
        return Some(next);
    }
    // `//host/path` is another host's. The hub does not say it, and where it leads is not guessed.
    if next.authority().is_some() || location.starts_with("//") || !location.starts_with('/') {
        return None;
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = next.into_parts().path_and_query;
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_same_scheme_host_and_port_are_the_same_server() {
        let hub = uri("https://huggingface.co");
        assert!(same_server(&hub, &uri("https://HuggingFace.co:443/a/b")));
        for other in [
            "http://huggingface.co",
            "https://huggingface.co:444/",
            "https://huggingface.co.evil.org/",
            "https://huggingface.co@evil.org/",
            "https://cdn.huggingface.co/",
        ] {
            assert!(!same_server(&hub, &uri(other)), "{other}");
        }
    }

    #[test]
    fn a_location_is_whole_or_within_its_server() {
        let from = uri("http://hub:81/a/b?c=d");
        assert_eq!(resolve(&from, "/x/y?z"), Some(uri("http://hub:81/x/y?z")));
        assert_eq!(resolve(&from, "https://cdn/x"), Some(uri("https://cdn/x")));
        assert_eq!(resolve(&from, "//cdn/x"), None);
    }

    #[test]
    fn an_address_escapes_what_has_a_meaning_in_it() {
        let (id, name) = ("org/name".to_owned(), "a dir/b?.json".to_owned());
        let file = FileOfHub { id, revision: "refs/pr/1".to_owned(), name };
        let expected = "https://hub/mirror/org/name/resolve/refs%2Fpr%2F1/a%20dir/b%3F.json";
        assert_eq!(file.address(&uri("https://hub/mirror")), expected);
    }

    #[test]
    fn a_time_that_is_no_time_is_refused() {
        assert_eq!(parse_seconds(" 5 "), Ok(Duration::from_secs(5)));
        for text in ["0", "-1", "soon", "1e9", "18446744073709551616"] {
            assert!(parse_seconds(text).unwrap_err().contains(text));
        }
    }
}
