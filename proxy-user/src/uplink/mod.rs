//! The proxy of the site: where upstreams are not reached directly, it is asked for a tunnel to each (`CONNECT`, RFC 9110 §9.3.6).
//!
//! Within the tunnel nothing is different: TLS is ours, from end to end. Whoever opens connections connects to the proxy and has
//! [`Uplink::ask`] say the rest; [`answer`] reads what the proxy says to it. The login goes to the proxy as the site wants it, which is
//! without TLS (RFC 7617): it is no credential of an API, and the operator names it.
//!
//! Invariant: of what comes behind the proxy's answer nothing is read.

pub mod answer;

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::config::{Direct, SiteProxy, Upstream};
use answer::Answer;

/// Gives `USER:PASSWORD` in Base64 as it is at the moment, or why there is none.
pub type Login = Box<dyn Fn() -> Result<Zeroizing<Vec<u8>>, String> + Send + Sync>;

/// The proxy, and what is not reached through it.
pub struct Uplink {
    proxy: SiteProxy,
    direct: Vec<Direct>,
    resolves: bool,
    limit: Duration,
    wants_login: bool,
    login: OnceLock<Login>,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// Why there is no tunnel. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The proxy cannot be reached.
    #[error("the proxy {proxy} ([upstream] proxy) cannot be reached: {why}")]
    Unreachable {
        /// Which one.
        proxy: String,
        /// Why.
        why: String,
    },
    /// It took too long.
    #[error("the proxy {proxy} ([upstream] proxy) did not open a tunnel to {target} within {} s", limit.as_secs_f32())]
    Timeout {
        /// Which one.
        proxy: String,
        /// To where.
        target: String,
        /// The limit.
        limit: Duration,
    },
    /// The login cannot be had.
    #[error(
        "the login at the proxy {proxy} cannot be had ([upstream] proxy_credential): {why}; nothing was asked for"
    )]
    NoLogin {
        /// Which one.
        proxy: String,
        /// Why, and what to do.
        why: String,
    },
    /// It wants a login, or another one (407).
    #[error("the proxy {proxy} wants {} (407); {}", if *had_one { "another login" } else { "a login" }, if *had_one {
        "store the right USER:PASSWORD under the name of [upstream] proxy_credential"
    } else {
        "store USER:PASSWORD with `vouchsafe secret set NAME`, and write proxy_credential = \"vault:NAME\" below [upstream]"
    })]
    WantsLogin {
        /// Which one.
        proxy: String,
        /// Whether one was sent.
        had_one: bool,
    },
    /// It does not open a tunnel there.
    #[error(
        "the proxy {proxy} refuses a tunnel to {target} ({status}); ask whoever runs it, or name the host in [upstream] no_proxy"
    )]
    Refused {
        /// Which one.
        proxy: String,
        /// To where.
        target: String,
        /// What it said.
        status: u16,
    },
    /// It cannot.
    #[error("the proxy {proxy} does not reach {target} ({status})")]
    NotReached {
        /// Which one.
        proxy: String,
        /// To where.
        target: String,
        /// What it said.
        status: u16,
    },
    /// What it said is no answer, or not all of one.
    #[error("the proxy {proxy} gave no answer that is one: {why}; check that an HTTP proxy is at that port")]
    NoAnswer {
        /// Which one.
        proxy: String,
        /// What is wrong.
        why: String,
    },
}

impl Uplink {
    /// As the configuration says; nothing where upstreams are reached directly.
    #[must_use]
    pub fn new(upstream: &Upstream) -> Option<Self> {
        Some(Self {
            proxy: upstream.proxy.clone()?,
            direct: upstream.no_proxy.clone(),
            resolves: upstream.proxy_resolves,
            limit: upstream.connect_timeout,
            wants_login: upstream.proxy_credential.is_some(),
            login: OnceLock::new(),
        })
    }

    /// Says where the login comes from. Does nothing the second time.
    pub fn log_in(&self, login: Login) {
        let _ = self.login.set(login);
    }

    /// Host and port of the proxy.
    #[must_use]
    pub fn place(&self) -> (&str, u16) {
        (&self.proxy.host, self.proxy.port)
    }

    /// The proxy, for people.
    #[must_use]
    pub fn told(&self) -> String {
        authority(&self.proxy.host, self.proxy.port)
    }

    /// Whether names are for the proxy alone to look up.
    #[must_use]
    pub fn resolves(&self) -> bool {
        self.resolves
    }

    /// How long opening a tunnel may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether the proxy leads to a host, which is at an address as far as that is known (else the unspecified one). What is on this
    /// host is never reached through it.
    #[must_use]
    pub fn takes(&self, host: Option<&str>, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let literal = host.and_then(|host| host.parse::<IpAddr>().ok());
        let is_known = !address.is_unspecified();
        let of_addresses = [literal, is_known.then_some(address)];
        let is_here = |it: &IpAddr| it.to_canonical().is_loopback() || it.to_canonical().is_unspecified();
        if (host.is_none() && !is_known) || of_addresses.iter().flatten().any(is_here) {
            return false;
        }
        if host.is_some_and(|host| host == "localhost" || host.ends_with(".localhost")) {
            return false;
        }
        let is_direct = |direct: &Direct| {
            host.is_some_and(|host| direct.is_name(host))
                || of_addresses.iter().flatten().any(|address| direct.is_address(*address))
        };
        !self.direct.iter().any(is_direct)
    }

    /// Asks the proxy, to which a connection was opened, for a tunnel to `target` (host and port). What it says behind its answer is left
    /// on the connection.
    ///
    /// # Errors
    /// It does not open one, in words that say whose fault that is.
    pub async fn ask(&self, stream: &mut TcpStream, target: &str) -> Result<(), UplinkError> {
        let proxy = self.told();
        let login = self.login_line()?;
        let had_one = login.is_some();
        // At its final size from the start: a buffer that grew would leave copies behind.
        let size = 2 * target.len() + login.as_ref().map_or(0, |line| line.len()) + 64;
        let mut request = Zeroizing::new(Vec::with_capacity(size));
        for piece in [b"CONNECT ", target.as_bytes(), b" HTTP/1.1\r\nHost: ", target.as_bytes(), b"\r\n"] {
            request.extend_from_slice(piece);
        }
        request.extend_from_slice(login.as_ref().map_or(&[], |line| line.as_slice()));
        request.extend_from_slice(b"\r\n");
        let broke = |why: String| UplinkError::NoAnswer { proxy: proxy.clone(), why };
        let sent = stream.write_all(&request).await;
        drop(request);
        sent.map_err(|error| broke(error.to_string()))?;
        let status = read(stream).await.map_err(broke)?;
        let target = target.to_owned();
        match status {
            200..=299 => Ok(()),
            407 => Err(UplinkError::WantsLogin { proxy, had_one }),
            500..=599 => Err(UplinkError::NotReached { proxy, target, status }),
            _ => Err(UplinkError::Refused { proxy, target, status }),
        }
    }

    /// The field that the proxy knows this host by.
    fn login_line(&self) -> Result<Option<Zeroizing<Vec<u8>>>, UplinkError> {
        if !self.wants_login {
            return Ok(None);
        }
        let failed = |why: String| UplinkError::NoLogin { proxy: self.told(), why };
        let login = self.login.get().ok_or_else(|| failed("it is not set up".to_owned()))?;
        let login = login().map_err(failed)?;
        let mut line = Zeroizing::new(Vec::with_capacity(login.len() + 32));
        for piece in [b"Proxy-Authorization: Basic ", login.as_slice(), b"\r\n"] {
            line.extend_from_slice(piece);
        }
        Ok(Some(line))
    }
}

/// Host and port as an authority.
#[must_use]
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Reads the proxy's answer to its end, and not a byte of what is behind it; the status.
async fn read(stream: &mut TcpStream) -> Result<u16, String> {
    let mut answer = Answer::default();
    let mut room = vec![0; answer::MOST];
    loop {
        // Looked at before it is taken: how much of it is the answer, only its end tells.
        let there = stream.peek(&mut room).await.map_err(|error| error.to_string())?;
        let seen = room.get(..there).unwrap_or_default();
        if seen.is_empty() {
            return Err("it closed the connection".to_owned());
        }
        let (taken, status) = answer.take(seen)?;
        let taken = room.get_mut(..taken).unwrap_or_default();
        stream.read_exact(taken).await.map_err(|error| error.to_string())?;
        if let Some(status) = status {
            return Ok(status);
        }
    }
}

#[cfg(test)]
mod tests;
