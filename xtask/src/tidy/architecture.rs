//! The rule for ARCHITECTURE.md: it describes every module of the daemon, in the order of `lib.rs`.
//!
//! A module is described by a line that begins with its name: in a list, a table, a heading or an indented map, as
//! `` `name` `` or `name/`.

/// What is missing or out of order on the page.
pub(super) fn check(page: &str, modules: &[String]) -> Vec<String> {
    let mut described: Vec<(usize, &str)> = Vec::new();
    for (index, line) in page.lines().enumerate() {
        let Some(name) = subject(line) else { continue };
        let known = modules.iter().any(|module| module == name);
        if known && !described.iter().any(|(_, seen)| *seen == name) {
            described.push((index + 1, name));
        }
    }
    let missing = modules.iter().filter(|module| !described.iter().any(|(_, name)| name == module));
    let mut findings: Vec<String> = missing
        .map(|module| {
            format!("ARCHITECTURE.md:1: describes no module {module}; add a line that begins with `{module}`")
        })
        .collect();
    // Out of order is what stands on the page before the one that lib.rs declares before it.
    let place = |name: &str| modules.iter().position(|module| module == name);
    for ((_, upper), (line, lower)) in described.iter().zip(described.iter().skip(1)) {
        if place(upper) > place(lower) {
            findings.push(format!(
                "ARCHITECTURE.md:{line}: describes {lower} after {upper}; keep the order of lib.rs's modules"
            ));
        }
    }
    findings
}

/// The name that a line begins with, after the signs of a list, a table or a heading.
fn subject(line: &str) -> Option<&str> {
    let line = line.trim_start_matches([' ', '\t', '-', '*', '|', '#', '│', '├', '└', '─']);
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let line = if digits.len() < line.len() { digits.trim_start_matches(['.', ' ']) } else { line };
    let name_end = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if let Some(quoted) = line.strip_prefix('`') {
        let name = quoted.get(..name_end(quoted))?;
        let rest = quoted.get(name.len()..)?;
        return (rest.starts_with('`') || rest.starts_with("/`")).then_some(name);
    }
    let name = line.get(..name_end(line))?;
    line.get(name.len()..)?.starts_with('/').then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(page: &str) -> Vec<String> {
        check(page, &["base", "kernel", "http"].map(str::to_owned))
    }

    #[test]
    fn every_form_of_a_line_is_understood() {
        for line in
            ["- `base` x", "| `base` | x |", "### `base`", "    base/  x", "1. `base/` x", "├── base/"]
        {
            assert_eq!(subject(line), Some("base"), "{line}");
        }
        for line in ["base is the ground", "the `base`", "`base::x`", "", "123"] {
            assert_eq!(subject(line), None, "{line}");
        }
    }

    #[test]
    fn a_missing_module_is_named() {
        assert_eq!(found("- `base` x\n- `kernel` y, see `http`\n").len(), 1);
        assert_eq!(found("").len(), 3);
    }

    #[test]
    fn the_order_is_that_of_lib_rs() {
        assert_eq!(found("- `base`\n- `kernel`\n- `http`\n- `base` again\n"), Vec::<String>::new());
        assert_eq!(found("- `base`\n- `http`\n- `kernel`\n").len(), 1);
    }
}
