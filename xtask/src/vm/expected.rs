//! How many instructions the verifier walks for each program on each kernel: a checked-in table, and what a run says to it.
//!
//! A jump shows long before the verifier's limit of a million is reached that a change made the programs hard to follow.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};

/// So far, in percent, a count may be from the expected one: kernels of one release differ a little from each other.
const TOLERANCE: u32 = 25;
/// In the table: loaded, and the kernel does not count (before Linux 5.16).
const NOT_COUNTED: &str = "-";
/// In the table: not loaded on this kernel.
const ABSENT: &str = "absent";

const HEAD: &str = "\
# How many instructions the verifier walked for each program (verified_insns of struct bpf_prog_info).
# `cargo xtask vm` fails when a program is further than 25 % from its line; `cargo xtask vm --bless` writes the lines anew.
# -: the kernel does not count (before Linux 5.16). absent: the program is not loaded on this kernel.
";

/// Counts by kernel and program. None: the program is loaded, and the kernel does not count.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table(BTreeMap<String, BTreeMap<String, Option<u32>>>);

impl Table {
    /// Reads the table: a line of kernels after the word `program`, then a line for each program.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let kernels: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().skip(1).collect();
        let mut table = Self::default();
        for line in lines {
            let mut words = line.split_whitespace();
            let program = words.next().unwrap_or_default();
            let counts: Vec<&str> = words.collect();
            if counts.len() != kernels.len() {
                bail!("the line of {program} has {} counts for {} kernels", counts.len(), kernels.len());
            }
            for (kernel, count) in kernels.iter().zip(counts) {
                let count = match count {
                    ABSENT => continue,
                    NOT_COUNTED => None,
                    number => Some(number.parse().with_context(|| format!("{number:?} is no count"))?),
                };
                table.0.entry((*kernel).to_owned()).or_default().insert(program.to_owned(), count);
            }
        }
        Ok(table)
    }

    /// The table as it is checked in, with its columns in the order of `kernels`.
    pub(super) fn written(&self, kernels: &[&str]) -> String {
        let columns: Vec<&str> = kernels.iter().copied().filter(|k| self.0.contains_key(*k)).collect();
        let programs: BTreeSet<&String> = self.0.values().flat_map(BTreeMap::keys).collect();
        let line = |name: &str, cells: Vec<String>| {
            let cells: String = cells.iter().map(|cell| format!(" {cell:>8}")).collect();
            format!("{name:<16}{cells}\n")
        };
        let mut text = HEAD.to_owned();
        text.push_str(&line("program", columns.iter().map(|&kernel| kernel.to_owned()).collect()));
        for program in programs {
            let cell = |kernel: &&str| match self.0.get(*kernel).and_then(|counts| counts.get(program)) {
                None => ABSENT.to_owned(),
                Some(count) => shown(*count),
            };
            text.push_str(&line(program, columns.iter().map(cell).collect()));
        }
        text
    }

    /// Takes what a run measured as what is expected on this kernel.
    pub(super) fn bless(&mut self, kernel: &str, measured: &BTreeMap<String, Option<u32>>) {
        self.0.insert(kernel.to_owned(), measured.clone());
    }

    /// What is wrong with what a run measured on this kernel; empty when nothing is.
    pub(super) fn problems(&self, kernel: &str, measured: &BTreeMap<String, Option<u32>>) -> Vec<String> {
        let nothing = BTreeMap::new();
        let expected = self.0.get(kernel).unwrap_or(&nothing);
        let mut problems = Vec::new();
        for (program, count) in measured {
            match expected.get(program) {
                None => problems.push(format!("{program} is loaded and not in the table of instructions")),
                Some(before) if !close(*before, *count) => problems.push(format!(
                    "{program}: the verifier walked {} instructions, expected are {} (within {TOLERANCE} %)",
                    shown(*count),
                    shown(*before)
                )),
                Some(_) => {}
            }
        }
        let missing = expected.keys().filter(|program| !measured.contains_key(*program));
        problems.extend(missing.map(|program| format!("{program} is in the table and was not loaded")));
        problems
    }
}

/// A count for people.
pub(super) fn shown(count: Option<u32>) -> String {
    count.map_or_else(|| NOT_COUNTED.to_owned(), |count| count.to_string())
}

fn close(expected: Option<u32>, measured: Option<u32>) -> bool {
    match (expected, measured) {
        (Some(expected), Some(measured)) => {
            u64::from(expected.abs_diff(measured)) * 100 <= u64::from(expected) * u64::from(TOLERANCE)
        }
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, Option<u32>)]) -> BTreeMap<String, Option<u32>> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let mut table = Table::default();
        table.bless("6.1", &counts(&[("on_connect4", Some(1000)), ("on_egress", Some(7))]));
        table.bless("5.10", &counts(&[("on_connect4", None)]));
        let text = table.written(&["5.10", "6.1", "6.12"]);
        assert!(text.contains("program              5.10      6.1\n"), "{text}");
        assert!(text.contains("on_connect4             -     1000\n"), "{text}");
        assert!(text.contains("on_egress          absent        7\n"), "{text}");
        assert_eq!(Table::parse(&text).unwrap(), table);
        assert_eq!(Table::parse("").unwrap(), Table::default());
        assert!(Table::parse("program 6.1\non_connect4 1 2\n").is_err());
        assert!(Table::parse("program 6.1\non_connect4 many\n").is_err());
    }

    #[test]
    fn a_jump_a_new_program_and_a_lost_one_are_told() {
        let mut table = Table::default();
        table.bless("6.1", &counts(&[("on_connect4", Some(1000)), ("on_egress", None)]));
        let problems = |of: &[(&str, Option<u32>)]| table.problems("6.1", &counts(of));
        assert!(problems(&[("on_connect4", Some(1250)), ("on_egress", None)]).is_empty());
        assert!(problems(&[("on_connect4", Some(750)), ("on_egress", None)]).is_empty());
        assert!(problems(&[("on_connect4", Some(1251)), ("on_egress", None)])[0].contains("1251"));
        assert!(
            problems(&[("on_connect4", Some(1000)), ("on_egress", Some(1))])[0].contains("expected are -")
        );
        assert!(problems(&[("on_connect4", Some(1000))])[0].contains("was not loaded"));
        let more = [("on_connect4", Some(1000)), ("on_egress", None), ("on_new", Some(1))];
        assert!(problems(&more)[0].contains("not in the table"));
        assert_eq!(table.problems("6.12", &counts(&[("on_connect4", Some(1))])).len(), 1);
    }
}
