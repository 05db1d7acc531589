//! Which address of a host is tried when, with real listeners on loopback addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use proptest::prelude::*;
use tokio::net::{TcpListener, TcpSocket};

use super::super::transport::Mode;
use super::*;
use crate::authorize::Kind;
use crate::authorize::tests::live;

/// The addresses of an API with these entries in its policy.
fn addresses(entries: &str) -> Arc<Addresses> {
    let text = format!("[api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\naddresses = [{entries}]\n");
    let live = live(&[("apis/plain.toml", &text)], 1);
    let api = live.set().apis().find(|api| api.name == "plain").unwrap();
    Arc::clone(&api.addresses)
}

fn socket(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 443)
}

fn ips(chosen: &str, answers: &[&str], entries: &str) -> Vec<String> {
    let answers: Vec<SocketAddr> = answers.iter().map(|ip| socket(ip)).collect();
    let (order, _) = others(socket(chosen), &answers, &addresses(entries));
    order.iter().map(|addr| addr.ip().to_string()).collect()
}

#[test]
fn families_take_turns_and_the_one_that_was_not_chosen_is_first() {
    let answers = ["8.0.0.1", "2606::1", "8.0.0.2", "2606::2", "8.0.0.3", "8.0.0.1"];
    for (chosen, order) in [
        ("8.0.0.1", &["2606::1", "8.0.0.2", "2606::2", "8.0.0.3"][..]),
        ("2606::1", &["8.0.0.1", "2606::2", "8.0.0.2", "8.0.0.3"]),
        ("::ffff:8.0.0.1", &["2606::1", "8.0.0.2", "2606::2", "8.0.0.3"]),
        ("9.9.9.9", &["2606::1", "8.0.0.1", "2606::2", "8.0.0.2", "8.0.0.3"]),
    ] {
        assert_eq!(ips(chosen, &answers, "\"public\""), order, "{chosen}");
    }
    assert!(ips("8.0.0.1", &["8.0.0.1"], "\"public\"").is_empty());
}

#[test]
fn what_may_not_be_an_address_of_the_api_is_not_tried_and_takes_no_place() {
    let answers = ["10.0.0.1", "169.254.169.254", "fd00:ec2::254", "8.0.0.2", "127.0.0.1"];
    assert_eq!(ips("8.0.0.1", &answers, "\"public\""), ["8.0.0.2"]);
    assert_eq!(ips("8.0.0.1", &answers, "\"private\", \"link-local\""), ["10.0.0.1"]);
    let private: Vec<String> = (1..=20).map(|it| format!("10.0.0.{it}")).collect();
    let answers: Vec<&str> = private.iter().map(String::as_str).chain(["8.0.0.2"]).collect();
    assert_eq!(ips("8.0.0.1", &answers, "\"public\""), ["8.0.0.2"]);
}

proptest! {
    #[test]
    fn what_is_tried_is_permitted_once_and_bounded(
        chosen: u32, v4 in proptest::collection::vec(any::<u32>(), 0..20), v6 in proptest::collection::vec(any::<u128>(), 0..20),
    ) {
        let chosen = SocketAddr::new(Ipv4Addr::from(chosen).into(), 443);
        let v4 = v4.iter().map(|ip| IpAddr::V4(Ipv4Addr::from(*ip)));
        let v6 = v6.iter().map(|ip| IpAddr::V6(Ipv6Addr::from((1 << 125) | (*ip >> 3))));
        let answers: Vec<SocketAddr> = v4.chain(v6).map(|ip| SocketAddr::new(ip, 443)).collect();
        let addresses = Addresses::default();
        let (order, refused) = others(chosen, &answers, &addresses);
        prop_assert!(order.len() <= MOST_OTHERS);
        let mut seen = std::collections::HashSet::new();
        for addr in &order {
            prop_assert!(seen.insert(addr) && answers.contains(addr) && *addr != chosen);
            prop_assert!(addresses.check(addr.ip()).is_ok());
        }
        let permitted = answers.iter().filter(|it| **it != chosen && addresses.check(it.ip()).is_ok());
        let mut permitted: Vec<_> = permitted.collect();
        prop_assert_eq!(!refused.is_empty(), answers.iter().any(|it| *it != chosen && addresses.check(it.ip()).is_err()));
        permitted.sort_unstable();
        permitted.dedup();
        prop_assert_eq!(order.len(), permitted.len().min(MOST_OTHERS));
        // As long as there are both, no two of a family stand together.
        let families: Vec<bool> = order.iter().map(SocketAddr::is_ipv4).collect();
        let other = families.iter().filter(|v4| !**v4).count();
        if other > 0 && other < families.len() {
            prop_assert!(!families[0] && families[1]);
        }
    }
}

/// A port at which 127.0.0.1 listens, with the listener.
async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// An address of loopback at which nobody listens, at that port.
fn dead(port: u16) -> SocketAddr {
    SocketAddr::new("127.0.0.2".parse().unwrap(), port)
}

/// A listener that does not answer: its queue is full.
struct Silent {
    _listener: TcpListener,
    _queued: Vec<tokio::task::JoinHandle<io::Result<TcpStream>>>,
}

async fn silent(addr: SocketAddr) -> (Silent, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(addr).unwrap();
    let listener = socket.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    loop {
        let mut connecting = tokio::spawn(TcpStream::connect(addr));
        let connected = timeout(Duration::from_millis(100), &mut connecting).await.is_ok();
        queued.push(connecting);
        if !connected {
            return (Silent { _listener: listener, _queued: queued }, addr);
        }
        assert!(queued.len() < 10, "the queue of the listener does not fill up");
    }
}

fn route(host: &str, addr: SocketAddr, addresses: Option<&Arc<Addresses>>) -> Route {
    Route::new(host.into(), UpstreamAddr(addr), Mode::Any).or_at(addresses)
}

fn dialer(limit: Duration) -> Dialer {
    Dialer::new(Vec::new(), limit)
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_address_that_refuses_is_replaced_by_another_one_of_the_host() {
    let (_listener, port) = listener().await;
    let route = route("localhost", dead(port), Some(&addresses("\"loopback\"")));
    let (stream, addr) = dialer(LONG).reach(&route).await.unwrap();
    assert_eq!(addr.0, SocketAddr::new("127.0.0.1".parse().unwrap(), port));
    assert_eq!(stream.peer_addr().unwrap(), addr.0);
}

#[tokio::test]
async fn an_address_that_is_silent_is_replaced_after_its_delay_and_not_before() {
    let (_listener, port) = listener().await;
    let (_silent, chosen) = silent(dead(port)).await;
    let began = Instant::now();
    let route = route("localhost", chosen, Some(&addresses("\"loopback\"")));
    let (_, addr) = dialer(LONG).reach(&route).await.unwrap();
    assert_eq!(addr.0, SocketAddr::new("127.0.0.1".parse().unwrap(), port));
    assert!(began.elapsed() >= ATTEMPT_DELAY, "{:?}", began.elapsed());
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_chosen_address_is_taken_when_it_answers_whatever_the_name_means() {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let chosen = listener.local_addr().unwrap();
    for host in ["localhost", "no-such-name.invalid"] {
        let route = route(host, chosen, Some(&addresses("\"loopback\"")));
        let (_, addr) = dialer(LONG).reach(&route).await.unwrap();
        assert_eq!(addr.0, chosen);
    }
}

#[tokio::test]
async fn a_route_that_has_no_other_addresses_ends_at_the_one() {
    let (_listener, port) = listener().await;
    let reached = dialer(LONG).reach(&route("localhost", dead(port), None)).await;
    assert!(matches!(reached, Err(ForwardError::Connect { .. })), "{reached:?}");
}

#[tokio::test]
async fn an_address_that_is_not_permitted_is_not_reached_and_the_operator_is_told() {
    let (_listener, port) = listener().await;
    let route = route("localhost", dead(port), Some(&addresses("\"public\"")));
    let error = dialer(LONG).reach(&route).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains(&dead(port).to_string()), "{told}");
    assert!(told.contains("is loopback, so it was not tried"), "{told}");
    let refusal = error.refusal("api.test");
    assert_eq!(refusal.kind, Kind::UpstreamUnreachable);
    assert!(!refusal.detail.contains("127.0.0"), "addresses are for the journal: {}", refusal.detail);
}

#[tokio::test]
async fn all_addresses_together_take_no_longer_than_the_limit() {
    let (_one, other) = silent("127.0.0.1:0".parse().unwrap()).await;
    let (_two, chosen) = silent(dead(other.port())).await;
    let limit = Duration::from_millis(700);
    let began = Instant::now();
    let route = route("localhost", chosen, Some(&addresses("\"loopback\"")));
    let error = dialer(limit).reach(&route).await.unwrap_err();
    assert!(began.elapsed() >= limit && began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    assert_eq!(error.refusal("api.test").kind, Kind::UpstreamTimeout, "{error}");
}

#[tokio::test]
async fn a_route_to_ourselves_is_no_reason_to_look_for_another_address() {
    let (_listener, port) = listener().await;
    let own = TcpListener::bind(dead(port)).await.unwrap().local_addr().unwrap();
    let route = route("localhost", own, Some(&addresses("\"loopback\"")));
    let reached = Dialer::new(vec![own], LONG).reach(&route).await;
    assert!(matches!(reached, Err(ForwardError::Loop { .. })), "{reached:?}");
}
