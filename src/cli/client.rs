//! Reaches the daemon: the options that every client command shares, and the connection.
//!
//! In: a URL, a token file, a certificate. Out: gRPC clients that carry the token.
//! Drops: nothing. A token is never printed, and never sent unencrypted beyond this machine.
//! Must not know: what is asked of the daemon.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use url::{Host, Url};

use super::failure::{Unreachable, Usage};
use crate::config::ServerConfig;
use crate::pb::camera_service_client::CameraServiceClient;
use crate::pb::event_service_client::EventServiceClient;
use crate::pb::gallery_service_client::GalleryServiceClient;
use crate::pb::recognition_service_client::RecognitionServiceClient;
use crate::pb::shadow_service_client::ShadowServiceClient;
use crate::pb::system_service_client::SystemServiceClient;

const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";
/// The largest answer that is read, in bytes: a snapshot with its whole frame, with much room.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent daemon is asked this often whether it lives, and given up after the second time.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How the daemon is reached; the same for every command that asks it something.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Client options")]
pub struct ClientOptions {
    /// The daemon's address [default: http://127.0.0.1:50051]
    #[arg(long, global = true, env = "DOORWARD_SERVER", value_name = "URL", value_parser = parse_server)]
    server: Option<Url>,
    /// A file with the bearer token, on its first line that is no comment
    #[arg(long, global = true, env = "DOORWARD_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The certificate (PEM) that the daemon's is signed by, for https://
    #[arg(long, global = true, env = "DOORWARD_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print JSON, one object a line, instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
}

fn parse_server(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; write it like http://127.0.0.1:50051"))?;
    match url.scheme() {
        "http" | "https" if url.host().is_some() => Ok(url),
        _ => Err("write it like http://127.0.0.1:50051 or https://door.example:50051".into()),
    }
}

/// A channel whose calls carry the token.
pub type Authorised = InterceptedService<Channel, Bearer>;

/// A connection to the daemon.
#[derive(Clone)]
pub struct Daemon(Authorised);

/// Adds the token, if there is one, to every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl ClientOptions {
    /// The daemon's address as it is printed.
    pub fn server(&self) -> &str {
        self.server.as_ref().map_or(DEFAULT_SERVER, |url| url.as_str().trim_end_matches('/'))
    }

    /// These options, or where none names a server the one that `config` describes, as it is reached
    /// on this machine.
    pub fn or_server_of(&self, config: &ServerConfig) -> Self {
        let mut options = self.clone();
        if options.server.is_none() {
            let scheme = if config.tls_certificate_file.is_some() { "https" } else { "http" };
            let ip = match config.listen.ip() {
                ip if !ip.is_unspecified() => ip,
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            options.server = Url::parse(&format!("{scheme}://{}", SocketAddr::new(ip, config.listen.port()))).ok();
        }
        options
    }

    /// Connects to the daemon.
    ///
    /// # Errors
    /// [`Unreachable`] when nobody answers there, [`Usage`] when the options contradict each
    /// other, and what the system says of files that cannot be read.
    pub async fn connect(&self) -> anyhow::Result<Daemon> {
        let bearer = Bearer(self.token()?);
        let mut endpoint = Endpoint::from_shared(self.server().to_owned())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        if self.is_https() {
            endpoint = endpoint.tls_config(self.tls()?)?;
        }
        let channel = endpoint.connect().await.map_err(|error| Unreachable::new(self.server(), &error))?;
        Ok(Daemon(InterceptedService::new(channel, bearer)))
    }

    fn is_https(&self) -> bool {
        self.server.as_ref().is_some_and(|url| url.scheme() == "https")
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let Some(file) = &self.ca_file else {
            return Err(
                Usage("https:// needs --ca-file FILE (or DOORWARD_CA_FILE): the certificate that signed the daemon's".into()).into()
            );
        };
        let pem = std::fs::read(file).with_context(|| format!("cannot read --ca-file {}", file.display()))?;
        Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
    }

    fn token(&self) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
        let Some(file) = &self.token_file else { return Ok(None) };
        if !self.is_https() && !self.is_loopback() {
            return Err(Usage(format!("a token is only sent over https:// or to this machine, not to {}", self.server())).into());
        }
        read_token(file).map(Some)
    }

    fn is_loopback(&self) -> bool {
        let Some(server) = &self.server else { return true };
        match server.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

fn read_token(file: &Path) -> anyhow::Result<MetadataValue<Ascii>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read --token-file {}", file.display()))?;
    let token = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let token = token.with_context(|| format!("--token-file {} holds no token", file.display()))?;
    // The parser's own error would not name the file.
    let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>().ok();
    let mut value = value.with_context(|| format!("the token in {} has characters that no token has", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Daemon {
    /// Who is known.
    pub fn gallery(&self) -> GalleryServiceClient<Authorised> {
        GalleryServiceClient::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Questions about one picture.
    pub fn recognition(&self) -> RecognitionServiceClient<Authorised> {
        RecognitionServiceClient::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// What happened.
    pub fn events(&self) -> EventServiceClient<Authorised> {
        EventServiceClient::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// What is watched.
    pub fn cameras(&self) -> CameraServiceClient<Authorised> {
        CameraServiceClient::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// What would have been decided otherwise.
    pub fn shadow(&self) -> ShadowServiceClient<Authorised> {
        ShadowServiceClient::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The daemon itself.
    pub fn system(&self) -> SystemServiceClient<Authorised> {
        SystemServiceClient::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

/// A fresh name for a change, so that a repeat of the call is answered and not done again.
pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(server: &str, token_file: Option<PathBuf>) -> ClientOptions {
        ClientOptions { server: Some(parse_server(server).expect("a URL")), token_file, ca_file: None, json: false }
    }

    #[test]
    fn a_token_never_leaves_the_machine_unencrypted() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("token");
        std::fs::write(&file, "# the doorkeeper's\n\n  s3cret-token \nsecond\n").expect("it is writable");
        let token = |server: &str| options(server, Some(file.clone())).token();
        assert_eq!(token("http://127.0.0.1:1").expect("loopback").expect("a token").to_str().ok(), Some("Bearer s3cret-token"));
        assert!(token("http://[::1]:1").is_ok() && token("http://localhost:1").is_ok() && token("https://door.example").is_ok());
        let refused = token("http://door.example:50051").expect_err("beyond this machine").to_string();
        assert!(refused.contains("https://") && !refused.contains("s3cret"), "{refused}");
        let shown = format!("{:?}", token("http://127.0.0.1:1"));
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn an_address_without_a_scheme_is_told_how_to_write_it() {
        for wrong in ["127.0.0.1:50051", "localhost:50051", "unix:/run/doorward", ""] {
            assert!(parse_server(wrong).expect_err(wrong).contains("http://127.0.0.1:50051"), "{wrong}");
        }
    }
}
