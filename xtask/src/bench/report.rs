//! The table: medians over rounds, ratios to direct, as Markdown that a terminal shows well, too.

use std::fs;

use super::Extent;
use super::connect::{Difference, Governed, PROBES, Probe};
use super::flat::Level;
use super::idle::{self, Resting};
use super::load::{Load, Sample, WAYS, Way};
use super::policy::{Findings, Latency};
use super::soak::{self, Soak};
use super::start::{self, Start};
use super::storm::Storm;

/// Everything that was measured.
pub(super) struct Report {
    about: String,
    idle: u64,
    peak: u64,
    samples: Vec<(Load, Way, Sample)>,
    connects: Vec<(Probe, Difference)>,
    pub(super) identities: Vec<(usize, Probe, Governed)>,
    pub(super) storm: Option<Storm>,
    pub(super) levels: Vec<Level>,
    pub(super) policy: Option<Findings>,
    pub(super) start: Option<Start>,
    pub(super) resting: Option<Resting>,
    pub(super) soak: Option<Soak>,
    /// The table of the credentials, as Markdown.
    pub(super) credentials: Option<String>,
    /// The table of the CA, as Markdown.
    pub(super) trust: Option<String>,
    /// The tables of the journal, as Markdown.
    pub(super) journal: Option<String>,
}

/// A row of the table, one cell for each column.
type Row = [String; 7];

impl Report {
    /// `idle` is the daemon's memory before any load, in KiB.
    pub(super) fn new(extent: &Extent, placed: bool, idle: u64) -> Self {
        let who = match placed {
            true => "Client and server (nginx, one worker) are on one processor, the proxy is on another"
                .to_owned(),
            false => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                format!("Client, server (nginx, one worker) and proxy share {processors} processors")
            }
        };
        let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let about = format!(
            "{who}; Linux {}; load average before: {}. Medians of up to {} rounds with {} s for each load.",
            kernel.trim(),
            busy.split(' ').next().unwrap_or("unknown"),
            extent.rounds,
            extent.seconds
        );
        Self {
            about,
            idle,
            peak: 0,
            samples: Vec::new(),
            connects: Vec::new(),
            identities: Vec::new(),
            storm: None,
            levels: Vec::new(),
            policy: None,
            credentials: None,
            trust: None,
            journal: None,
            start: None,
            resting: None,
            soak: None,
        }
    }

    pub(super) fn add(&mut self, load: Load, way: Way, sample: Sample) {
        self.samples.push((load, way, sample));
    }

    pub(super) fn add_connect(&mut self, probe: Probe, difference: Difference) {
        self.connects.push((probe, difference));
    }

    pub(super) fn peak(&mut self, kib: u64) {
        self.peak = self.peak.max(kib);
    }

    /// As Markdown, aligned so that it can be read as it is.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("{}\n", self.about);
        if !self.samples.is_empty() {
            text.push_str(&self.loads());
        }
        if !self.connects.is_empty() {
            text.push_str(&format!("\n{}", connect_table(&self.connects)));
        }
        if !self.identities.is_empty() {
            text.push_str(&format!("\n{}", identities_table(&self.identities)));
        }
        if let Some(Storm { calls, seconds }) = &self.storm {
            text.push_str(&format!(
                "\n{calls} processes were executed for one call each, {:.0} in a second: every call is in the journal once, \
                 as its own process's and program's.\n",
                f64::from(u32::try_from(*calls).unwrap_or(u32::MAX)) / seconds.max(1e-9)
            ));
        }
        if !self.levels.is_empty() {
            text.push_str(&format!("\n{}", levels_table(&self.levels)));
        }
        if let Some(start) = &self.start {
            text.push_str(&format!("\n{}", start::table(start)));
        }
        if let Some(resting) = &self.resting {
            text.push_str(&format!("\n{}", idle::table(resting)));
        }
        if let Some(soak) = &self.soak {
            text.push_str(&format!("\n{}", soak::told(soak)));
        }
        for table in [&self.credentials, &self.trust, &self.journal].into_iter().flatten() {
            text.push_str(&format!("\n{table}"));
        }
        if let Some(findings) = &self.policy {
            text.push_str(&policy_tables(findings));
        }
        text
    }

    fn loads(&self) -> String {
        let mut text = format!("\n{}", table(&self.rows()));
        text.push_str(&format!(
            "\nMemory of the daemon (PSS): {} idle, {} at most.\n",
            mib(self.idle),
            mib(self.peak)
        ));
        let errors: f64 = self.samples.iter().map(|(_, _, sample)| sample.errors).sum();
        let requests: f64 =
            self.samples.iter().filter(|(load, ..)| !load.is_large()).map(|(_, _, s)| s.requests).sum();
        text.push_str(&format!("\n{requests:.0} requests were answered well, {errors:.0} were not.\n"));
        text
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            [
                "load",
                "",
                "direct",
                "passed through",
                "intercepted",
                "passed ÷ direct",
                "intercepted ÷ direct",
            ]
            .map(str::to_owned),
        ];
        let measured = |load: &Load| self.samples.iter().any(|(of, _, _)| of == load);
        for load in Load::all().into_iter().filter(measured) {
            let unit = if load.is_large() { "MB/s" } else { "requests/s" };
            let name = load.name();
            rows.push(self.row(load, &name, unit, whole, |sample| Some(sample.rate)));
            if load.has_latency() {
                rows.push(self.row(load, "", "p50", time, |sample| Some(sample.p50)));
                rows.push(self.row(load, "", "p99", time, |sample| Some(sample.p99)));
            }
            let per = if load.is_large() { "proxy CPU per MB" } else { "proxy CPU per request" };
            rows.push(self.row(load, "", per, time, |sample| sample.cpu));
        }
        rows
    }

    fn row(
        &self,
        load: Load,
        name: &str,
        what: &str,
        shown: fn(f64) -> String,
        figure: fn(&Sample) -> Option<f64>,
    ) -> Row {
        let [direct, passed, intercepted] = WAYS.map(|way| {
            let of_way = self.samples.iter().filter(|(l, w, _)| *l == load && *w == way);
            let all: Vec<f64> = of_way.filter_map(|(_, _, sample)| figure(sample)).collect();
            (!all.is_empty()).then(|| median(&all))
        });
        let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), shown);
        let ratio = |value: Option<f64>| match (value, direct) {
            (Some(value), Some(direct)) if direct > 0.0 => format!("{:.2}", value / direct),
            _ => "–".to_owned(),
        };
        [
            name.to_owned(),
            what.to_owned(),
            cell(direct),
            cell(passed),
            cell(intercepted),
            ratio(passed),
            ratio(intercepted),
        ]
    }
}

fn connect_table(all: &[(Probe, Difference)]) -> String {
    let head = [
        "what the hook costs",
        "without programs",
        "with programs",
        "difference",
        "on_connect4",
        "all programs",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for probe in PROBES {
        let figures = |figure: fn(&Difference) -> Option<f64>| {
            let values: Vec<f64> = all
                .iter()
                .filter(|(p, _)| *p == probe)
                .filter_map(|(_, difference)| figure(difference))
                .collect();
            if values.is_empty() { "–".to_owned() } else { format!("{:.0} ns", median(&values)) }
        };
        rows.push([
            probe.name().to_owned(),
            figures(|it| Some(it.without)),
            figures(|it| Some(it.with)),
            figures(|it| Some(it.with - it.without)),
            figures(|it| it.counted.map(|(connect, _)| connect)),
            figures(|it| it.counted.map(|(_, all)| all)),
        ]);
    }
    let counted = match all.iter().any(|(_, difference)| difference.counted.is_some()) {
        true => {
            "The last two columns are the kernel's own count: one run of on_connect4, and all programs for one call."
        }
        false => "The last two columns need bpftool, which is not installed, or a kernel that counts.",
    };
    format!("{}\n{counted}\n", table(&rows))
}

fn identities_table(all: &[(usize, Probe, Governed)]) -> String {
    let head = [
        "identities",
        "",
        "not governed",
        "governed, no identity",
        "governed, an identity",
        "÷ not governed",
        "",
        "on_connect4",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    let mut known = None;
    for (identities, probe, Governed { outside, unknown, identified, counted }) in all {
        let name = if known.replace(*identities) == Some(*identities) {
            String::new()
        } else {
            identities.to_string()
        };
        let ns = |value: f64| format!("{value:.0} ns");
        let ratio = |value: f64| format!("{:.2}", value / outside.max(1e-9));
        rows.push([
            name,
            probe.name().to_owned(),
            ns(*outside),
            ns(*unknown),
            ns(*identified),
            ratio(*unknown),
            ratio(*identified),
            counted.map_or_else(|| "–".to_owned(), ns),
        ]);
    }
    table(&rows)
}

fn levels_table(all: &[Level]) -> String {
    let head = [
        "connections in a row",
        "each second",
        "daemon (PSS)",
        "its cgroup",
        "kernel, all of it",
        "origins left",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for level in all {
        rows.push([
            level.connections.to_string(),
            whole(level.rate),
            mib(level.daemon),
            level.cgroup.map_or_else(|| "–".to_owned(), mib),
            mib(level.kernel),
            level.origins.to_string(),
        ]);
    }
    table(&rows)
}

fn policy_tables(found: &Findings) -> String {
    let head = ["calls of one client, 500 in a second", "calls", "p50", "p99", "longest"];
    let mut rows = vec![head.map(str::to_owned)];
    let all =
        [("no reload", &found.still), ("one reload", &found.once), ("reload after reload", &found.reloading)];
    for (name, rounds) in all {
        let middle = |pick: fn(&Latency) -> f64| median(&rounds.iter().map(pick).collect::<Vec<f64>>());
        let most = rounds.iter().map(|round| round.most).fold(0.0, f64::max);
        rows.push([
            format!("{name}, {} identities", found.identities),
            whole(rounds.iter().map(|round| round.calls).sum()),
            time(middle(|round| round.p50)),
            time(middle(|round| round.p99)),
            time(most),
        ]);
    }
    let slowest = found.reloads.iter().copied().fold(0.0, f64::max);
    format!(
        "\n{}\n{} reloads of {} files under these calls: {} each (median), {} at most.\n\n{}",
        found.decisions.trim_end().to_owned() + "\n",
        found.reloads.len(),
        found.identities,
        time(median(&found.reloads)),
        time(slowest),
        table(&rows)
    )
}

/// The middle one, or the middle between the middle two; 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => at(length / 2),
        length => f64::midpoint(at(length / 2 - 1), at(length / 2)),
    }
}

/// A Markdown table; its first row is the head, and the columns after the first are figures.
pub(super) fn table<R: AsRef<[String]>>(rows: &[R]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.as_ref().get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let columns = rows.first().map_or(0, |row| row.as_ref().len());
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.as_ref().iter().zip(&widths).enumerate() {
            let fill = " ".repeat(width - cell.chars().count());
            let (left, right) = if column == 0 { ("", fill.as_str()) } else { (fill.as_str(), "") };
            text.push_str(&format!("| {left}{cell}{right} "));
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let line = "-".repeat(width.saturating_sub(1).max(2));
                text.push_str(&if column == 0 { format!("| {line}- ") } else { format!("| {line}: ") });
            }
            text.push_str("|\n");
        }
    }
    text
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 0.1 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.0} ms", s * 1e3),
    }
}

pub(super) fn mib(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn figures_are_shown_in_units_that_people_read() {
        assert_eq!(
            (time(0.000_042), time(0.0125), time(1.5)),
            ("42 µs".into(), "12.50 ms".into(), "1500 ms".into())
        );
        assert_eq!(mib(1536), "1.5 MiB");
    }

    #[test]
    fn a_table_is_aligned_also_with_letters_of_more_than_one_byte() {
        let text = table(&[["load", "p50"], ["a", "7 µs"]].map(|row| row.map(str::to_owned)));
        assert_eq!(text, "| load |  p50 |\n| ---- | ---: |\n| a    | 7 µs |\n");
    }

    #[test]
    fn ratios_are_to_direct() {
        let extent = Extent { rounds: 1, seconds: 1, limit: std::time::Duration::ZERO };
        let mut report = Report::new(&extent, false, 0);
        for (way, rate) in WAYS.into_iter().zip([200.0, 100.0, 50.0]) {
            report.add(Load::New, way, Sample { rate, ..Sample::default() });
        }
        let row = report.row(Load::New, "x", "requests/s", whole, |sample| Some(sample.rate));
        assert_eq!(row.as_slice(), ["x", "requests/s", "200", "100", "50", "0.50", "0.25"]);
    }
}
