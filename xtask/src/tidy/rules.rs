//! The rules for one Rust file.

use super::DAEMON;
use super::scrub::scrub;

/// A file longer than this is about more than one thing.
const LONGEST_FILE: usize = 600;

/// Crates that have one address in the daemon: (crate, module that may name it).
const DOORS: [(&str, &str); 7] = [
    ("aya", "kernel"),
    ("aya_log", "kernel"),
    ("aya_obj", "kernel"),
    ("rustls", "trust"),
    ("tokio_rustls", "trust"),
    ("rustls_pki_types", "trust"),
    ("rustls_native_certs", "trust"),
];

/// What is left undone has no place in the tree.
const UNDONE: [&str; 3] = ["todo!", "unimplemented!", "#[ignore"];

/// The names of the modules that the scrubbed text of a `lib.rs` declares, in its order.
pub(super) fn modules(lib: &str) -> Vec<String> {
    lib.lines()
        .filter_map(|line| {
            let line = line.trim();
            let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
            line.strip_prefix("mod ")?.strip_suffix(';').map(|name| name.trim().to_owned())
        })
        .collect()
}

/// One Rust file: its path from the root of the workspace, its text, and its text without comments and literals.
pub(super) struct Source<'a> {
    name: &'a str,
    text: &'a str,
    code: String,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text, code: scrub(text) }
    }

    /// Everything in this file that breaks a rule, given the daemon's modules in their order.
    pub(super) fn check(&self, modules: &[String]) -> Vec<String> {
        let mut findings = Vec::new();
        self.check_shape(&mut findings);
        self.check_undone(&mut findings);
        self.check_unsafe(&mut findings);
        if let Some(module) = self.module() {
            self.check_doors(module, &mut findings);
            self.check_direction(module, modules, &mut findings);
        }
        findings
    }

    /// The daemon's module that this file is part of; its `lib.rs` and `main.rs` are part of none.
    fn module(&self) -> Option<&'a str> {
        let path = self.name.strip_prefix(DAEMON)?.strip_prefix('/')?;
        let first = path.split('/').next()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(module, "lib" | "main" | "bin")).then_some(module)
    }

    /// Whether the whole file is test code.
    fn is_test(&self) -> bool {
        self.name.contains("/tests/") || self.name.ends_with("tests.rs")
    }

    fn check_shape(&self, findings: &mut Vec<String>) {
        if !self.text.starts_with("//!") {
            findings
                .push(format!("{}:1: begins without `//!`; say in one line what the file is for", self.name));
        }
        let lines = self.text.lines().count();
        if lines > LONGEST_FILE {
            findings.push(format!(
                "{}:{lines}: is longer than {LONGEST_FILE} lines; split it by what it is about",
                self.name
            ));
        }
    }

    fn check_undone(&self, findings: &mut Vec<String>) {
        for (number, line) in self.lines() {
            for word in UNDONE.iter().filter(|word| contains_word(line, word)) {
                findings.push(format!("{}:{number}: has `{word}`; finish it or leave it out", self.name));
            }
        }
    }

    fn check_unsafe(&self, findings: &mut Vec<String>) {
        let allowed = self.name.starts_with("proxy-ebpf/") || self.module() == Some("kernel");
        // The marker traits of aya's map values can only be implemented where the records are.
        let of_records = self.name.starts_with("proxy-common/");
        // Tests outside of the sources may count allocations and the like; clippy still wants a reason for each.
        let of_tests = !self.name.contains("/src/") && self.name.contains("/tests/")
            // Programs that play what attacks do, which is often what no library offers.
            || self.name.starts_with("tests/src/bin/");
        if allowed || of_tests {
            return;
        }
        for (number, line) in self.lines().filter(|(_, line)| contains_word(line, "unsafe")) {
            if !(of_records && line.contains("unsafe impl")) {
                findings.push(format!(
                    "{}:{number}: has `unsafe`; it belongs into {DAEMON}/kernel or proxy-ebpf",
                    self.name
                ));
            }
        }
    }

    fn check_doors(&self, module: &str, findings: &mut Vec<String>) {
        if self.is_test() {
            // A test may play the other side, with a TLS client or server of its own.
            return;
        }
        for (number, line) in self.lines() {
            for (name, door) in DOORS {
                if module != door && names_crate(line, name) {
                    findings.push(format!(
                        "{}:{number}: names the crate {name}; only {DAEMON}/{door} does, ask it for what you need",
                        self.name
                    ));
                }
            }
        }
    }

    fn check_direction(&self, module: &str, modules: &[String], findings: &mut Vec<String>) {
        let place = |name: &str| modules.iter().position(|known| known == name);
        let Some(own) = place(module) else {
            findings.push(format!("{}:1: lib.rs declares no module {module}; declare it there", self.name));
            return;
        };
        for (number, used) in used_modules(&self.code) {
            if place(&used).is_some_and(|used| used > own) {
                findings.push(format!(
                    "{}:{number}: uses crate::{used}, which lib.rs declares below {module}; \
                     a module uses only those above it",
                    self.name
                ));
            }
        }
    }

    /// The lines of code, numbered from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// The first names after each `crate::` in `code`, with their line; `crate::{a, b::c}` gives a and b.
fn used_modules(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, marker) in code.match_indices("crate::") {
        let (before, after) =
            (code.get(..at).unwrap_or_default(), code.get(at + marker.len()..).unwrap_or_default());
        if before.ends_with(is_name_char) || before.ends_with("$") {
            continue;
        }
        let line = before.matches('\n').count() + 1;
        let mut add = |line: usize, text: &str| {
            let name: String = text.trim_start().chars().take_while(|c| is_name_char(*c)).collect();
            if !name.is_empty() {
                found.push((line, name));
            }
        };
        match after.trim_start().strip_prefix('{') {
            Some(group) => {
                let lines_before =
                    |offset| line + group.get(..offset).unwrap_or_default().matches('\n').count();
                for (offset, part) in top_level_parts(group) {
                    // The name stands after the blanks that the part begins with.
                    let blanks = part.len() - part.trim_start().len();
                    add(lines_before(offset + blanks), part);
                }
            }
            None => add(line, after),
        }
    }
    found
}

/// The parts of a use group, whose opening brace is gone, that commas separate at its own level; with their offsets.
fn top_level_parts(group: &str) -> Vec<(usize, &str)> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                parts.push((start, group.get(start..at).unwrap_or_default()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    parts
}

/// Whether a line of code names the crate: in a path, a `use` or an `extern crate`.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line.get(..at).unwrap_or_default();
        let after = line.get(at + name.len()..).unwrap_or_default();
        // `crate::rustls::…` and `self.aya` are names of ours.
        let begins = !before.ends_with(is_name_char) && !before.ends_with([':', '.']);
        let imported = before.trim_end().ends_with("use") || before.trim_end().ends_with("extern crate");
        begins && !after.starts_with(is_name_char) && (after.starts_with("::") || imported)
    })
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).unwrap_or_default();
        let after = line.get(at + word.len()..).unwrap_or_default();
        let ends = !word.ends_with(is_name_char) || !after.starts_with(is_name_char);
        ends && !before.ends_with(is_name_char)
    })
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, code: &str) -> Vec<String> {
        let order = ["base", "kernel", "trust", "http"].map(str::to_owned);
        Source::new(name, &format!("//! For a test.\n{code}")).check(&order)
    }

    #[test]
    fn modules_are_read_in_the_order_of_lib_rs() {
        let lib = "pub mod base;\nmod kernel;\npub(crate) mod http;\nmod inline { }\nuse base::x;\n";
        assert_eq!(modules(lib), ["base", "kernel", "http"]);
    }

    #[test]
    fn a_file_says_what_it_is_for_and_stays_short() {
        assert_eq!(Source::new("tests/a.rs", "fn f() {}\n").check(&[]).len(), 1);
        let long = format!("//! Long.\n{}", "\n".repeat(600));
        assert_eq!(Source::new("tests/a.rs", &long).check(&[]).len(), 1);
        assert_eq!(findings("tests/a.rs", ""), Vec::<String>::new());
    }

    #[test]
    fn what_is_undone_is_found_in_code_and_not_in_text() {
        assert_eq!(findings("tests/a.rs", "fn f() { todo!() }").len(), 1);
        assert_eq!(findings("tests/a.rs", "#[ignore = \"slow\"]").len(), 1);
        assert_eq!(findings("tests/a.rs", "// todo!\nlet a = \"todo!\"; my_todo!();"), Vec::<String>::new());
    }

    #[test]
    fn unsafe_has_its_places() {
        assert_eq!(findings("proxy-user/src/base.rs", "unsafe { f() }").len(), 1);
        assert_eq!(findings("proxy-policy/src/lib.rs", "unsafe impl Send for A {}").len(), 1);
        for fine in [
            "proxy-user/src/kernel/load.rs",
            "proxy-ebpf/src/main.rs",
            "proxy-policy/tests/it/a.rs",
            "tests/src/bin/actor/a.rs",
        ] {
            assert_eq!(findings(fine, "unsafe { f() }"), Vec::<String>::new());
        }
        assert_eq!(findings("proxy-common/src/lib.rs", "unsafe impl Pod for A {}"), Vec::<String>::new());
        assert_eq!(findings("xtask/src/a.rs", "#![expect(unsafe_code)]"), Vec::<String>::new());
    }

    #[test]
    fn dangerous_crates_have_one_address() {
        assert_eq!(findings("proxy-user/src/http.rs", "use rustls::ServerConfig;").len(), 1);
        assert_eq!(findings("proxy-user/src/http.rs", "use aya as bpf;").len(), 1);
        assert_eq!(findings("proxy-user/src/http/h1.rs", "fn f(x: aya_log::EbpfLogger) {}").len(), 1);
        assert_eq!(
            findings("proxy-user/src/trust/leaf.rs", "use rustls::ServerConfig;"),
            Vec::<String>::new()
        );
        for test in ["proxy-user/src/sniff/hello_tests.rs", "proxy-user/src/http/tests/tls.rs"] {
            let found = findings(test, "use rustls::ServerConfig;");
            assert!(!found.iter().any(|line| line.contains("rustls")), "{found:?}");
        }
        let ours = "use crate::trust::rustls::x; let y = papaya::z(); self.aya();";
        assert_eq!(findings("proxy-user/src/http.rs", ours), Vec::<String>::new());
        assert_eq!(findings("tests/src/lib.rs", "use rustls::ServerConfig;"), Vec::<String>::new());
    }

    #[test]
    fn modules_use_only_those_above_them() {
        assert_eq!(findings("proxy-user/src/http.rs", "use crate::trust::Ca; use crate::http::A;").len(), 0);
        assert_eq!(findings("proxy-user/src/trust.rs", "fn f() { crate::http::serve() }").len(), 1);
        assert_eq!(findings("proxy-user/src/main.rs", "use crate::http::A;").len(), 0);
        let group = "use crate::{\n    base::{http, trust},\n    http::A,\n    trust,\n};";
        let found = findings("proxy-user/src/kernel/mod.rs", group);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found.iter().any(|line| line.starts_with("proxy-user/src/kernel/mod.rs:4: uses crate::http"))
        );
    }

    #[test]
    fn a_module_that_lib_rs_does_not_know_is_found() {
        assert_eq!(findings("proxy-user/src/lost.rs", "").len(), 1);
    }
}
