//! The table: a row for each load and figure, a column for each contestant; who did not take part, and why.

use super::contestant::{self, Contestant};
use super::load::{self, Figure, Load, Sample};
use crate::bench::report::{median, mib, table, time};

/// Somebody's memory: idle, and at most.
type Memory = (Contestant, u64, u64);

/// Everything that was measured, and everything that was not.
#[derive(Default)]
pub(super) struct Results {
    about: String,
    samples: Vec<(Load, Contestant, Figure, f64)>,
    /// Why a load has no figure.
    failures: Vec<(Load, Contestant, String)>,
    /// Why somebody takes no part at all.
    absent: Vec<(Contestant, String)>,
    /// What else is to be told about somebody.
    remarks: Vec<(Contestant, String)>,
    /// KiB (PSS) of all its processes: before any load, and the most that was seen.
    memory: Vec<Memory>,
}

impl Results {
    /// `about` says under which circumstances.
    pub(super) fn new(about: String) -> Self {
        Self { about, ..Self::default() }
    }

    /// `cpu` is the processor time that the contestant's processes used, in seconds.
    pub(super) fn add(&mut self, load: Load, contestant: Contestant, sample: &Sample, cpu: Option<f64>) {
        let cost = sample.amount.zip(cpu).map(|((figure, amount), cpu)| (figure, cpu / amount.max(1e-9)));
        let all = sample.figures.iter().copied().chain(cost);
        self.samples.extend(all.map(|(figure, value)| (load, contestant, figure, value)));
    }

    pub(super) fn failed(&mut self, load: Load, contestant: Contestant, why: &str) {
        let known = self.failures.iter().any(|it| (it.0, it.1) == (load, contestant));
        if !known {
            self.failures.push((load, contestant, one_line(why)));
        }
    }

    pub(super) fn absent(&mut self, contestant: Contestant, why: &str) {
        self.absent.push((contestant, one_line(why)));
    }

    pub(super) fn remark(&mut self, contestant: Contestant, what: &str) {
        self.remarks.push((contestant, one_line(what)));
    }

    pub(super) fn idle(&mut self, contestant: Contestant, kib: u64) {
        self.memory.push((contestant, kib, kib));
    }

    pub(super) fn peak(&mut self, contestant: Contestant, kib: u64) {
        for it in self.memory.iter_mut().filter(|it| it.0 == contestant) {
            it.2 = it.2.max(kib);
        }
    }

    fn value(&self, load: Load, contestant: Contestant, figure: Figure) -> Option<f64> {
        let of = |it: &&(Load, Contestant, Figure, f64)| (it.0, it.1, it.2) == (load, contestant, figure);
        let values: Vec<f64> = self.samples.iter().filter(of).map(|it| it.3).collect();
        (!values.is_empty()).then(|| median(&values))
    }

    /// As Markdown, aligned so that it can be read as it is.
    pub(super) fn markdown(&self) -> String {
        let columns: Vec<Contestant> =
            contestant::ALL.into_iter().filter(|it| !self.absent.iter().any(|(who, _)| who == it)).collect();
        let mut rows = vec![["load".to_owned(), "figure".to_owned()].to_vec()];
        if let Some(head) = rows.first_mut() {
            head.extend(columns.iter().map(|it| it.name().to_owned()));
        }
        let mut notes: Vec<String> = Vec::new();
        for load in load::ALL.into_iter().chain(load::LONG) {
            let mut name = load.name();
            for figure in FIGURES {
                let values: Vec<Option<f64>> =
                    columns.iter().map(|it| self.value(load, *it, figure)).collect();
                // What nobody was asked for is no row.
                if values.iter().all(Option::is_none) {
                    continue;
                }
                let mut row = vec![std::mem::take(&mut name), figure.name().to_owned()];
                let direct = self.value(load, Contestant::Direct, figure);
                let best = best(figure, columns.iter().zip(&values));
                for (contestant, value) in columns.iter().zip(values) {
                    row.push(match value {
                        Some(value) => {
                            let ratio = direct.filter(|_| *contestant != Contestant::Direct);
                            cell(
                                &figure.shown(value),
                                ratio.map(|it| value / it.max(1e-12)),
                                best == Some(value) && contestant.injects(),
                            )
                        }
                        None => self.missing(load, *contestant, &mut notes),
                    });
                }
                rows.push(row);
            }
        }
        self.memory_rows(&columns, &mut rows);
        let mut text = format!("{}\n\n{}", self.about, table(&rows));
        text.push_str(
            "\n× is the ratio to direct. **The best** of those that add the key themselves; direct and the relay do not.\n",
        );
        for (number, note) in notes.iter().enumerate() {
            text.push_str(&format!("\n- [{}] {note}", number + 1));
        }
        for (contestant, remark) in &self.remarks {
            if columns.contains(contestant) {
                text.push_str(&format!("\n- {}: {remark}", contestant.name()));
            }
        }
        for (contestant, why) in &self.absent {
            text.push_str(&format!("\n- {} did not take part: {why}", contestant.name()));
        }
        text + "\n"
    }

    /// What stands where there is no figure: a number of a note that says why, where there is a reason.
    fn missing(&self, load: Load, contestant: Contestant, notes: &mut Vec<String>) -> String {
        let Some((.., why)) = self.failures.iter().find(|it| (it.0, it.1) == (load, contestant)) else {
            return "–".to_owned();
        };
        let note = format!("{}: {why}", contestant.name());
        let known = notes.iter().position(|it| *it == note);
        let place = known.unwrap_or_else(|| {
            notes.push(note);
            notes.len() - 1
        });
        format!("no [{}]", place + 1)
    }

    fn memory_rows(&self, columns: &[Contestant], rows: &mut Vec<Vec<String>>) {
        for (number, name) in ["idle", "at most"].into_iter().enumerate() {
            let measured = |who: &Contestant| {
                let memory = self.memory.iter().find(|it| it.0 == *who);
                memory.map(|it| if number == 0 { it.1 } else { it.2 })
            };
            let best = columns.iter().filter(|it| it.injects()).filter_map(measured).min();
            let mut row = vec![if number == 0 { "memory (PSS)" } else { "" }.to_owned(), name.to_owned()];
            row.extend(columns.iter().map(|who| match measured(who) {
                Some(kib) => cell(&mib(kib), None, who.injects() && best == Some(kib)),
                None => "–".to_owned(),
            }));
            rows.push(row);
        }
    }
}

/// All figures, as the table has them.
const FIGURES: [Figure; 7] =
    [Figure::Rate, Figure::Throughput, Figure::TlsUp, Figure::P50, Figure::P99, Figure::Cpu, Figure::CpuOfGb];

impl Figure {
    fn name(self) -> &'static str {
        match self {
            Self::Rate => "requests/s",
            Self::TlsUp => "TLS up, p50",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Cpu => "CPU s/1,000 requests",
            Self::Throughput => "MB/s",
            Self::CpuOfGb => "CPU s/GB",
        }
    }

    fn more_is_better(self) -> bool {
        matches!(self, Self::Rate | Self::Throughput)
    }

    fn shown(self, value: f64) -> String {
        match self {
            Self::Rate | Self::Throughput => format!("{value:.0}"),
            Self::TlsUp | Self::P50 | Self::P99 => time(value),
            Self::Cpu => format!("{value:.4}"),
            Self::CpuOfGb => format!("{value:.2}"),
        }
    }
}

/// The best of those that can be compared.
fn best<'a>(figure: Figure, all: impl Iterator<Item = (&'a Contestant, &'a Option<f64>)>) -> Option<f64> {
    let values = all.filter(|(who, _)| who.injects()).filter_map(|(_, value)| *value);
    match figure.more_is_better() {
        true => values.max_by(f64::total_cmp),
        false => values.min_by(f64::total_cmp),
    }
}

fn cell(value: &str, ratio: Option<f64>, is_best: bool) -> String {
    let text = ratio.map_or_else(|| value.to_owned(), |ratio| format!("{value} ({ratio:.2}×)"));
    if is_best { format!("**{text}**") } else { text }
}

/// What a program said, in one line that is no cell of a table.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text: String = words.join(" ").replace('|', "/");
    match text.char_indices().nth(300) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "…",
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(value: f64) -> Sample {
        Sample {
            figures: vec![(Figure::Rate, value), (Figure::P99, 1.0 / value)],
            amount: Some((Figure::Cpu, 2.0)),
        }
    }

    fn some() -> Results {
        let mut results = Results::default();
        let load = Load::Http2;
        results.add(load, Contestant::Direct, &rate(200.0), None);
        results.add(load, Contestant::Relay, &rate(190.0), Some(0.1));
        results.add(load, Contestant::Vouchsafe, &rate(100.0), Some(0.5));
        results.add(load, Contestant::Nginx, &rate(150.0), Some(0.8));
        for who in contestant::ALL.into_iter().skip(5) {
            results.absent(who, "a reason\nof two lines | and a bar");
        }
        results.failed(load, Contestant::Haproxy, "it broke");
        results
    }

    fn row<'a>(text: &'a str, figure: &str) -> Vec<&'a str> {
        let line = text
            .lines()
            .find(|line| line.contains(&format!("| {figure} ")) || line.contains(&format!(" {figure} |")));
        line.map(|line| line.split('|').map(str::trim).collect()).unwrap_or_default()
    }

    #[test]
    fn the_best_is_marked_among_those_that_add_the_key() {
        let text = some().markdown();
        assert_eq!(
            row(&text, "requests/s")[3..8],
            ["200", "190 (0.95×)", "100 (0.50×)", "no [1]", "**150 (0.75×)**"]
        );
        // Less is better here, and direct has none.
        assert_eq!(
            row(&text, "CPU s/1,000 requests")[3..8],
            ["–", "0.0500", "**0.2500**", "no [1]", "0.4000"]
        );
    }

    #[test]
    fn whoever_is_missing_is_named_with_the_reason() {
        let text = some().markdown();
        assert!(text.contains("- [1] HAProxy: it broke"), "{text}");
        assert!(text.contains("- Squid did not take part: a reason of two lines / and a bar"), "{text}");
        assert!(!row(&text, "figure").contains(&"Squid"), "{text}");
    }

    #[test]
    fn what_nobody_was_asked_for_is_no_row() {
        let text = some().markdown();
        assert!(!text.contains("GET of 100 MB") && !text.contains("MB/s"), "{text}");
    }

    #[test]
    fn the_figure_is_the_median_over_rounds() {
        let mut results = some();
        for value in [300.0, 10.0] {
            results.add(Load::Http2, Contestant::Nginx, &rate(value), None);
        }
        assert_eq!(row(&results.markdown(), "requests/s")[7], "**150 (0.75×)**");
    }
}
