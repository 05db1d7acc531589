//! An actor: a bot that plays what an unmodified program would not. It speaks plain HTTP to `ADDRESS:PORT`.
//!
//! ```text
//! actor get ADDRESS PATH              one request, prints the answer
//! actor hold ADDRESS PATH             connects, prints "connected", waits for a line, then as get
//! actor exec ADDRESS PROGRAM ARG…     connects, then executes PROGRAM with the connection as its stdin
//! actor leave ADDRESS PROGRAM ARG…    connects, starts PROGRAM with the connection as its stdin, and ends
//! actor speak PATH                    the other half of both: a request over the connection that is its stdin
//! actor wait ADDRESS PATH             prints "waiting", waits for a line, then as get
//! actor peer ADDRESS                  connects, prints what getpeername says
//! actor knock ADDRESS                 connects, prints what comes until the end: "connected, N bytes", or the error
//! actor named COMM ADDRESS PATH       takes another name (comm), then as get
//! actor disguise FILE ADDRESS PATH    makes the kernel name FILE as its executable, prints what it names, then as get
//! actor udp-connect ADDRESS           connects a datagram socket and sends, prints "sent" or the error
//! actor udp-send ADDRESS              sends a datagram without connecting, prints "sent" or the error
//! actor udp-message ADDRESS           the same by sendmsg(2)
//! actor udp-many ADDRESS              the same by sendmmsg(2)
//! actor storm N ADDRESS PROGRAM…      executes N of these programs, many at a time, each as get of /v1/storm/NAME/NUMBER, and
//!                                     prints "NUMBER PID STATUS" for each that ended
//! actor uring-send ADDRESS            the same by io_uring
//! actor uring-get ADDRESS PATH        as get, by io_uring from connect(2) on
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::zombie_processes,
    reason = "an actor that cannot play says so"
)]

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg};

#[path = "actor/disguise.rs"]
mod disguise;
#[path = "actor/uring.rs"]
mod uring;

/// Longer than any answer takes; an actor must not hang.
const LIMIT: Duration = Duration::from_secs(20);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["get", address, path] => get(&mut connect(address), path),
        ["hold", address, path] => {
            let mut stream = connect(address);
            println!("connected");
            io::stdin().lock().read_line(&mut String::new()).unwrap();
            get(&mut stream, path);
        }
        ["wait", address, path] => {
            println!("waiting");
            io::stdin().lock().read_line(&mut String::new()).unwrap();
            get(&mut connect(address), path);
        }
        ["exec", address, program, rest @ ..] => {
            let stream = connect(address);
            let error = Command::new(program).args(rest).stdin(Stdio::from(OwnedFd::from(stream))).exec();
            panic!("cannot execute {program}: {error}");
        }
        ["leave", address, program, rest @ ..] => {
            let stream = connect(address);
            Command::new(program).args(rest).stdin(Stdio::from(OwnedFd::from(stream))).spawn().unwrap();
        }
        ["speak", path] => {
            let stdin = io::stdin().as_fd().try_clone_to_owned().unwrap();
            get(&mut TcpStream::from(stdin), path);
        }
        ["peer", address] => println!("{}", connect(address).peer_addr().unwrap()),
        ["knock", address] => knock(address),
        ["named", comm, address, path] => {
            std::fs::write("/proc/thread-self/comm", comm).unwrap();
            get(&mut connect(address), path);
        }
        ["disguise", file, address, path] => {
            disguise::disguise(file).unwrap();
            println!("{}", std::fs::read_link("/proc/self/exe").unwrap().display());
            get(&mut connect(address), path);
        }
        ["udp-connect", address] => {
            let socket = datagram(address);
            told(socket.connect(address).and_then(|()| socket.send(b"hello")));
        }
        ["udp-send", address] => told(datagram(address).send_to(b"hello", address)),
        ["udp-message", address] => told(message(&datagram(address), address)),
        ["udp-many", address] => told(many(&datagram(address), address)),
        ["storm", count, address, programs @ ..] => storm(count.parse().unwrap(), address, programs),
        ["uring-send", address] => told(uring::send(&datagram(address), address)),
        ["uring-get", address, path] => match uring::get(address, path) {
            Ok(answer) => println!("{answer}"),
            Err(error) => println!("{error}"),
        },
        _ => panic!("not understood: {words:?}"),
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = match TcpStream::connect(address) {
        Ok(stream) => stream,
        Err(error) => {
            println!("cannot connect: {error}");
            std::process::exit(2);
        }
    };
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Asks `plain.test` for a path and prints the whole answer.
fn get(stream: &mut TcpStream, path: &str) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let outcome = stream.read_to_end(&mut answer);
    println!("{}", String::from_utf8_lossy(&answer));
    if let Err(error) = outcome {
        println!("broke off: {error}");
    }
}

/// How many programs of a storm run at a time.
const AT_A_TIME: usize = 16;

fn storm(count: usize, address: &str, programs: &[&str]) {
    let mut running = std::collections::VecDeque::new();
    for number in 0..=count {
        while running.len() >= AT_A_TIME || (number == count && !running.is_empty()) {
            let (number, child): (usize, std::process::Child) = running.pop_front().unwrap();
            let pid = child.id();
            let answer = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            println!("{number} {pid} {}", answer.split(' ').nth(1).unwrap_or("none"));
        }
        if number < count {
            let program = std::path::Path::new(programs.get(number % programs.len()).unwrap());
            let name = program.file_name().unwrap().to_str().unwrap();
            let mut command = Command::new(program);
            command.args(["get", address, &format!("/v1/storm/{name}/{number}")]).stdout(Stdio::piped());
            running.push_back((number, command.spawn().unwrap()));
        }
    }
}

fn knock(address: &str) {
    let mut stream = connect(address);
    let _ = write!(stream, "GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    println!("connected, {} bytes", answer.len());
}

fn datagram(address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap()
}

fn message(socket: &UdpSocket, address: &str) -> io::Result<usize> {
    let to = SockaddrStorage::from(address.parse::<SocketAddr>().unwrap());
    let parts = [io::IoSlice::new(b"hello")];
    Ok(sendmsg(socket.as_raw_fd(), &parts, &[], MsgFlags::empty(), Some(&to))?)
}

fn many(socket: &UdpSocket, address: &str) -> io::Result<usize> {
    let to = [Some(SockaddrStorage::from(address.parse::<SocketAddr>().unwrap()))];
    let parts = [[io::IoSlice::new(b"hello")]];
    let mut headers = MultiHeaders::preallocate(1, None);
    let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &parts, to, [], MsgFlags::empty())?;
    Ok(sent.count())
}

fn told(outcome: io::Result<usize>) {
    match outcome {
        Ok(_) => println!("sent"),
        Err(error) => println!("{error}"),
    }
}
