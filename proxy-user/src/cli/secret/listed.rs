//! What is known of secrets, as a table, a page, or JSON. Never a value.

use std::fmt::Write as _;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::safe;
use crate::credentials::{Listed, MAX_PAST, Past};

fn date(seconds: u64) -> Option<String> {
    let date = i64::try_from(seconds).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())?;
    date.format(&Rfc3339).ok()
}

fn shown(seconds: u64) -> String {
    date(seconds).unwrap_or_else(|| "unknown".to_owned())
}

/// A line each.
pub(super) fn table(secrets: &[Listed]) -> String {
    let head = ["NAME", "VERSION", "SET", "OWNER", "LABELS"].map(str::to_owned);
    let rows = secrets.iter().map(|it| {
        let labels = it.about.to_string();
        [
            it.name.to_string(),
            it.version.to_string(),
            shown(it.created_s),
            it.about.owner().map_or_else(|| "-".to_owned(), safe),
            if labels.is_empty() { "-".to_owned() } else { safe(&labels) },
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let mut table = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max();
            let room = " ".repeat(width.unwrap_or(0) - cell.chars().count());
            // Numbers stand to the right.
            let (before, after) = if column == 1 { (room.as_str(), "") } else { ("", room.as_str()) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

/// All of one.
pub(super) fn page(it: &Listed) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    writeln!(page, "name     {}", it.name)?;
    writeln!(page, "version  {}, since {}", it.version, shown(it.created_s))?;
    writeln!(page, "owner    {}", it.about.owner().map_or_else(|| "-".to_owned(), safe))?;
    for (name, value) in it.about.labels() {
        writeln!(page, "label    {}={}", safe(name), safe(value))?;
    }
    for Past { version, created_s } in it.before.iter().rev() {
        writeln!(page, "before   {version}, since {}; its value is gone", shown(*created_s))?;
    }
    let first = it.before.first().map_or(it.version, |past| past.version);
    if first > 1 {
        writeln!(page, "         versions before {first}: of more than {MAX_PAST} nothing is remembered")?;
    }
    Ok(page)
}

/// For programs.
pub(super) fn to_json(it: &Listed) -> Value {
    let before: Vec<_> =
        it.before.iter().map(|it| json!({ "version": it.version, "set": date(it.created_s) })).collect();
    json!({
        "name": it.name.as_str(),
        "version": it.version,
        "set": date(it.created_s),
        "owner": it.about.owner(),
        "labels": it.about.labels(),
        "before": before,
    })
}
