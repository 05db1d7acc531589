//! Which runtime a process is, and so where it looks for roots.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _};

use memchr::memmem::Finder;

use super::snapshot::{Snapshot, name_of};

/// A kind of client, by the way in which it finds the roots that it trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The command curl.
    Curl,
    /// GNU Wget.
    Wget,
    /// Git, over libcurl.
    Git,
    /// Another program with libcurl.
    LibCurl,
    /// Python.
    Python,
    /// Node.js.
    Node,
    /// npm, which is a program of Node.js with settings of its own.
    Npm,
    /// Deno.
    Deno,
    /// Bun.
    Bun,
    /// A program in Go.
    Go,
    /// Java.
    Java,
    /// Ruby.
    Ruby,
    /// PHP.
    Php,
    /// Perl.
    Perl,
    /// Cargo.
    Cargo,
    /// .NET.
    DotNet,
    /// Chromium, and what is made of it.
    Chromium,
    /// Another program with NSS, such as Firefox.
    Nss,
    /// Another program with OpenSSL.
    OpenSsl,
    /// Another program with GnuTLS.
    GnuTls,
    /// A program that looks for the system's roots by itself, also where `SSL_CERT_FILE` says.
    Native,
    /// A program with roots compiled in.
    CompiledIn,
    /// Something else.
    Unknown,
}

impl Kind {
    /// How it is called.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Wget => "Wget",
            Self::Git => "Git",
            Self::LibCurl => "libcurl",
            Self::Python => "Python",
            Self::Node => "Node.js",
            Self::Npm => "npm",
            Self::Deno => "Deno",
            Self::Bun => "Bun",
            Self::Go => "Go",
            Self::Java => "Java",
            Self::Ruby => "Ruby",
            Self::Php => "PHP",
            Self::Perl => "Perl",
            Self::Cargo => "Cargo",
            Self::DotNet => ".NET",
            Self::Chromium => "Chromium",
            Self::Nss => "NSS",
            Self::OpenSsl => "OpenSSL",
            Self::GnuTls => "GnuTLS",
            Self::Native => "a static program that reads the system's roots",
            Self::CompiledIn => "a static program with roots compiled in",
            Self::Unknown => "an unknown runtime",
        }
    }

    /// Whether roots are read when the process starts, or at its first connection, and never again.
    #[must_use]
    pub(super) fn reads_once(self) -> bool {
        use Kind::{Bun, Chromium, Deno, DotNet, Go, Java, Native, Node, Npm, Nss, Unknown};
        matches!(self, Node | Npm | Deno | Bun | Go | Java | DotNet | Chromium | Nss | Native | Unknown)
    }
}

/// A runtime, and its version where that is plain to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Which.
    pub kind: Kind,
    /// As it calls it.
    pub version: Option<String>,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        match &self.version {
            Some(version) => write!(f, " {version}"),
            None => Ok(()),
        }
    }
}

/// Finds the runtime: by what is mapped, by the name of the executable, and only then by what stands in it.
pub(super) fn recognize(seen: &Snapshot) -> Runtime {
    let name = seen.exe.as_deref().map(name_of).unwrap_or_default();
    let of = |kind| Runtime { kind, version: None };
    let digits = |text: &str| {
        let version: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        Some(version.trim_end_matches('.').to_owned()).filter(|version| !version.is_empty())
    };
    if seen.maps("libjvm.so") || matches!(name, "java" | "jshell") {
        return of(Kind::Java);
    }
    if seen.maps("libcoreclr.so") || name == "dotnet" {
        return of(Kind::DotNet);
    }
    let library = seen.mapping("libpython").map(name_of);
    if let Some(rest) =
        name.strip_prefix("python").or(library.and_then(|name| name.strip_prefix("libpython")))
    {
        // Of a `python3` that is a copy, its library says which.
        let folders = || {
            seen.mapped.iter().flat_map(|path| path.split('/')).filter_map(|name| name.strip_prefix("python"))
        };
        let known = std::iter::once(rest).chain(folders()).filter_map(digits);
        let version = known.into_iter().find(|version| version.contains('.'));
        return Runtime { kind: Kind::Python, version };
    }
    if matches!(name, "node" | "nodejs") || seen.maps("libnode.so") {
        return of(if seen.options.is_npm { Kind::Npm } else { Kind::Node });
    }
    let by_name = match name {
        "deno" => Some(Kind::Deno),
        "bun" => Some(Kind::Bun),
        "curl" => Some(Kind::Curl),
        "wget" => Some(Kind::Wget),
        "cargo" => Some(Kind::Cargo),
        _ if name == "git" || name.starts_with("git-remote-http") => Some(Kind::Git),
        _ if name.starts_with("ruby") || seen.maps("libruby") => Some(Kind::Ruby),
        _ if name.starts_with("php") || seen.maps("libphp") => Some(Kind::Php),
        _ if name.starts_with("perl") || seen.maps("libperl.so") => Some(Kind::Perl),
        _ if ["chrom", "msedge", "brave", "electron"].iter().any(|start| name.starts_with(start)) => {
            Some(Kind::Chromium)
        }
        _ if seen.maps("libnss3.so") => Some(Kind::Nss),
        _ => None,
    };
    if let Some(kind) = by_name {
        return of(kind);
    }
    let image = seen.image.as_ref().map(scan).unwrap_or_default();
    if let Some(version) = image.go {
        return Runtime { kind: Kind::Go, version };
    }
    let uses = |library: &str, named: bool| seen.maps(library) || (!seen.is_whole && named);
    of(match () {
        () if uses("libcurl", image.has(Mark::LibCurl)) => Kind::LibCurl,
        () if uses("libssl.so", image.has(Mark::LibSsl)) => Kind::OpenSsl,
        () if uses("libgnutls.so", image.has(Mark::LibGnuTls)) => Kind::GnuTls,
        () if image.has(Mark::Variable) => Kind::Native,
        () if image.has(Mark::Root) => Kind::CompiledIn,
        () => Kind::Unknown,
    })
}

/// Bytes of an executable that are looked at, at most.
const MOST_BYTES: u64 = 96 << 20;
const CHUNK: usize = 1 << 20;

/// What stands in an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    LibCurl,
    LibSsl,
    LibGnuTls,
    /// It knows the variable that names roots.
    Variable,
    /// It has a root of the web, by its name.
    Root,
}

const MARKS: [(Mark, &[u8]); 5] = [
    (Mark::LibCurl, b"libcurl"),
    (Mark::LibSsl, b"libssl.so"),
    (Mark::LibGnuTls, b"libgnutls.so"),
    (Mark::Variable, b"SSL_CERT_FILE"),
    (Mark::Root, b"ISRG Root X1"),
];
/// Go's own mark of what a program was built from (`debug/buildinfo`). The version follows 32 bytes later, from Go 1.18 on.
const GO: &[u8] = b"\xff Go buildinf:";
const GO_VERSION: usize = 32;
/// The longest that is looked for, with what is read behind it.
const OVERLAP: usize = 96;

#[derive(Debug, Default)]
struct Image {
    marks: Vec<Mark>,
    go: Option<Option<String>>,
}

impl Image {
    fn has(&self, mark: Mark) -> bool {
        self.marks.contains(&mark)
    }
}

/// Looks through an executable, in pieces.
fn scan(mut file: &File) -> Image {
    let mut image = Image::default();
    let finders = MARKS.map(|(mark, bytes)| (mark, Finder::new(bytes)));
    let go = Finder::new(GO);
    let (mut piece, mut kept) = (vec![0_u8; OVERLAP + CHUNK], 0);
    if file.rewind().is_err() {
        return image;
    }
    let mut file = file.take(MOST_BYTES);
    loop {
        let Some(room) = piece.get_mut(kept..) else { return image };
        let Ok(count @ 1..) = file.read(room) else { return image };
        let end = kept + count;
        let Some(known) = piece.get(..end) else { return image };
        for (mark, finder) in &finders {
            if !image.has(*mark) && finder.find(known).is_some() {
                image.marks.push(*mark);
            }
        }
        if let Some(at) = go.find(known) {
            image.go = Some(known.get(at + GO_VERSION..).and_then(go_version));
            if image.go.as_ref().is_some_and(Option::is_some) {
                return image;
            }
        }
        let keep = end.min(OVERLAP);
        piece.copy_within(end - keep..end, 0);
        kept = keep;
    }
}

/// A length of one byte, and a text such as `go1.22.1`.
fn go_version(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first()?;
    let text = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
    let version = text.strip_prefix("go")?.split(' ').next()?;
    version.bytes().all(|byte| byte.is_ascii_graphic()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn scanned(content: &[u8]) -> Image {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        scan(&file)
    }

    #[test]
    fn marks_are_found_over_the_border_of_two_pieces() {
        for at in [0, CHUNK - 5, CHUNK + OVERLAP - 6, 2 * CHUNK + 3] {
            let content = [&vec![b'.'; at], b"SSL_CERT_FILE".as_slice(), b"tail"].concat();
            assert!(scanned(&content).has(Mark::Variable), "{at}");
        }
        assert!(scanned(b"SSL_CERT_FIL").marks.is_empty());
    }

    #[test]
    fn a_go_program_says_its_version_and_a_cut_one_none() {
        let mut content = vec![0; 40];
        content.extend_from_slice(GO);
        content.resize(40 + GO_VERSION, 0);
        content.extend_from_slice(b"\x08go1.22.1 trailing");
        assert_eq!(scanned(&content).go, Some(Some("1.22.1".to_owned())));
        assert_eq!(scanned(&content[..40 + GO_VERSION + 3]).go, Some(None));
    }

    #[test]
    fn a_running_python_is_one_with_its_version() {
        let mut python = std::process::Command::new("/usr/bin/python3");
        let python = python.args(["-c", "print('up', flush=True); input()"]);
        let python = python.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = python.spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        let runtime = recognize(&Snapshot::take(child.id(), None).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(runtime.kind, Kind::Python);
        assert!(runtime.version.is_some_and(|version| version.starts_with("3.")));
    }
}
