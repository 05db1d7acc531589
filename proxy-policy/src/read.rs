//! Strict reading of TOML tables: every wrong key and every wrong type is reported, and reading goes on.

use toml::Spanned as At;
use toml::de::{DeString, DeTable, DeValue};

use crate::diagnostic::{Findings, Problem, quote};
use crate::place::{Lines, Place, Spanned};
use crate::suggest;

/// One table of a file and how messages call it.
pub(crate) struct Section<'t> {
    pub(crate) what: String,
    /// How `what` continues a sentence: "unknown key … in [identity]".
    preposition: &'static str,
    pub(crate) place: Place,
    table: &'t DeTable<'t>,
}

impl<'t> Section<'t> {
    /// How many keys it has.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// What stands under a key, whatever it is.
    pub(crate) fn value(&self, key: &str) -> Option<&'t DeValue<'t>> {
        self.table.get(key).map(|value| value.get_ref())
    }

    /// Whether something stands under a key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }
}

/// Reads one file.
pub(crate) struct Reader<'a> {
    lines: &'a Lines<'a>,
    pub(crate) findings: &'a mut Findings,
}

/// What a key that is not known here should say, if there is something better than its nearest neighbour.
pub(crate) type Hint = fn(&str) -> Option<Problem>;

impl<'a> Reader<'a> {
    pub(crate) fn new(lines: &'a Lines<'a>, findings: &'a mut Findings) -> Self {
        Self { lines, findings }
    }

    /// The top of the file.
    pub(crate) fn root<'t>(&self, table: &'t DeTable<'t>) -> Section<'t> {
        Section { what: "the top of the file".into(), preposition: "at", place: self.lines.top(), table }
    }

    fn place<T>(&self, at: &At<T>) -> Place {
        self.lines.place(at.span().start)
    }

    /// Reports every key that is not one of `known`.
    pub(crate) fn check_keys(&mut self, section: &Section<'_>, known: &[&str], hint: Hint) {
        #[cfg(test)]
        note_keys(&section.what, known);
        for key in section.table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let problem = hint(name).unwrap_or_else(|| {
                let help = suggest::help(name, known.iter().copied(), "key");
                Problem::new(
                    format!("unknown key {} {} {}", quote(name), section.preposition, section.what),
                    help,
                )
            });
            self.findings.problem(self.place(key), problem);
        }
    }

    /// Where a key stands; where the table begins if it is not there.
    pub(crate) fn key_place(&self, section: &Section<'_>, key: &str) -> Place {
        section.table.get_key_value(key).map_or(section.place, |(key, _)| self.place(key))
    }

    /// A string.
    pub(crate) fn string(&mut self, section: &Section<'_>, key: &str) -> Option<Spanned<String>> {
        let value = section.table.get(key)?;
        let place = self.place(value);
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(text.to_string(), place)),
            other => {
                let help = format!("write {key} = \"…\"");
                self.wrong_type(section, key, place, "a string", other, help);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, section: &Section<'_>, key: &str) -> Option<Spanned<bool>> {
        let value = section.table.get(key)?;
        let place = self.place(value);
        match value.get_ref() {
            DeValue::Boolean(value) => Some(Spanned::new(*value, place)),
            other => {
                self.wrong_type(section, key, place, "true or false", other, format!("write {key} = true"));
                None
            }
        }
    }

    /// An integer.
    pub(crate) fn integer(&mut self, section: &Section<'_>, key: &str) -> Option<Spanned<i64>> {
        let value = section.table.get(key)?;
        let place = self.place(value);
        let number = match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        if number.is_none() {
            self.wrong_type(
                section,
                key,
                place,
                "an integer",
                value.get_ref(),
                format!("write {key} = 1000"),
            );
        }
        Some(Spanned::new(number?, place))
    }

    /// The place of a byte of a string that was written as it is; the place of the string if it has escapes.
    pub(crate) fn place_within(&self, section: &Section<'_>, key: &str, at: usize) -> Place {
        let Some(value) = section.table.get(key) else { return section.place };
        let start = value.span().start;
        let raw = self.lines.text(value.span());
        let DeValue::String(text) = value.get_ref() else { return self.place(value) };
        match ["'''\r\n", "'''\n", "'''", "'", "\"\"\"\n", "\"\"\"", "\""]
            .iter()
            .find(|quote| raw.starts_with(**quote))
        {
            Some(quote) if raw.get(quote.len()..).is_some_and(|rest| rest.starts_with(&**text)) => {
                self.lines.place(start + quote.len() + at)
            }
            _ => self.place(value),
        }
    }

    /// A date, or a date with a time.
    pub(crate) fn datetime(
        &mut self,
        section: &Section<'_>,
        key: &str,
    ) -> Option<Spanned<toml::value::Datetime>> {
        let value = section.table.get(key)?;
        let place = self.place(value);
        match value.get_ref() {
            DeValue::Datetime(value) => Some(Spanned::new(*value, place)),
            other => {
                let help = format!("write {key} = 2027-01-31, without quotes");
                self.wrong_type(section, key, place, "a date", other, help);
                None
            }
        }
    }

    /// The keys of a table, in the order of the file.
    pub(crate) fn keys(&self, section: &Section<'_>) -> Vec<Spanned<String>> {
        let key = |key: &At<DeString<'_>>| Spanned::new(key.get_ref().to_string(), self.place(key));
        let mut keys: Vec<Spanned<String>> = section.table.keys().map(key).collect();
        keys.sort_by_key(|key| key.place);
        keys
    }

    /// A table of strings: `{ owner = "acme" }`, in the order of the file.
    pub(crate) fn string_table(
        &mut self,
        section: &Section<'_>,
        key: &str,
    ) -> Vec<(Spanned<String>, Spanned<String>)> {
        let help = format!("write {key} = {{ name = \"value\" }}");
        let Some(inner) = self.section(section, key, &format!("\"{key}\""), &help) else { return Vec::new() };
        self.keys(&inner)
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.string(&inner, &name)?)))
            .collect()
    }

    /// A list of strings and tables; a table is called `what` in messages.
    pub(crate) fn strings_or_tables<'t>(
        &mut self,
        section: &Section<'t>,
        key: &str,
        what: &str,
    ) -> Vec<Result<Spanned<String>, Section<'t>>> {
        let Some(value) = section.table.get(key) else { return Vec::new() };
        let place = self.place(value);
        let help = format!("write {key} = [\"…\"], or {key} = [{{ … }}]");
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(section, key, place, "a list", value.get_ref(), help);
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in items.iter() {
            let place = self.place(item);
            match item.get_ref() {
                DeValue::String(text) => out.push(Ok(Spanned::new(text.to_string(), place))),
                DeValue::Table(table) => {
                    out.push(Err(Section { what: what.into(), preposition: "in", place, table }));
                }
                other => {
                    self.wrong_type(section, key, place, "a list of strings and tables", other, help.clone())
                }
            }
        }
        out
    }

    /// A string that is not there is an error that says `help`.
    pub(crate) fn required(
        &mut self,
        section: &Section<'_>,
        key: &str,
        help: &str,
    ) -> Option<Spanned<String>> {
        if !section.has(key) {
            self.missing(section, key, help);
        }
        self.string(section, key)
    }

    pub(crate) fn missing(&mut self, section: &Section<'_>, key: &str, help: &str) {
        self.findings.error(section.place, format!("{} has no \"{key}\"", section.what), help);
    }

    /// A string that `parse` understands.
    pub(crate) fn parsed<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<Spanned<T>> {
        let text = self.string(section, key)?;
        self.parse(&text, parse)
    }

    pub(crate) fn parse<T>(
        &mut self,
        text: &Spanned<String>,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<Spanned<T>> {
        match parse(text) {
            Ok(value) => Some(Spanned::new(value, text.place)),
            Err(problem) => {
                self.findings.problem(text.place, problem);
                None
            }
        }
    }

    /// A list of strings; none if the key is missing. Elements of another type are reported and left out.
    pub(crate) fn strings(&mut self, section: &Section<'_>, key: &str) -> Vec<Spanned<String>> {
        let Some(value) = section.table.get(key) else { return Vec::new() };
        let place = self.place(value);
        let DeValue::Array(items) = value.get_ref() else {
            let help = format!("write {key} = [\"…\"]");
            self.wrong_type(section, key, place, "a list of strings", value.get_ref(), help);
            return Vec::new();
        };
        let mut strings = Vec::new();
        for item in items.iter() {
            let place = self.place(item);
            match item.get_ref() {
                DeValue::String(text) => strings.push(Spanned::new(text.to_string(), place)),
                other => {
                    let help = format!("write {key} = [\"…\"]");
                    self.wrong_type(section, key, place, "a list of strings", other, help);
                }
            }
        }
        strings
    }

    /// The table under a key; messages about what is in it call it `what`.
    pub(crate) fn section<'t>(
        &mut self,
        section: &Section<'t>,
        key: &str,
        what: &str,
        help: &str,
    ) -> Option<Section<'t>> {
        let (name, value) = section.table.get_key_value(key)?;
        let place = self.place(name);
        match value.get_ref() {
            DeValue::Table(table) => Some(Section { what: what.into(), preposition: "in", place, table }),
            other => {
                let place = self.place(value);
                self.wrong_type(section, key, place, "a table", other, help.into());
                None
            }
        }
    }

    /// The tables under a key: `[[grant]]`.
    pub(crate) fn sections<'t>(&mut self, section: &Section<'t>, key: &str) -> Vec<Section<'t>> {
        let Some((name, value)) = section.table.get_key_value(key) else { return Vec::new() };
        let what = format!("[[{key}]]");
        let help = format!("write each one as {what} with double brackets");
        let DeValue::Array(items) = value.get_ref() else {
            let place = self.place(name);
            self.wrong_type(section, key, place, "a list of tables", value.get_ref(), help);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items.iter() {
            let place = self.place(item);
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section { what: what.clone(), preposition: "in", place, table })
                }
                other => self.wrong_type(section, key, place, "a list of tables", other, help.clone()),
            }
        }
        sections
    }

    /// The named tables under a key: `[api.stripe]`, in the order of the file.
    pub(crate) fn named<'t>(
        &mut self,
        section: &Section<'t>,
        key: &str,
    ) -> Vec<(Spanned<String>, Section<'t>)> {
        let Some(all) = self.section(section, key, key, &format!("write each {key} as a table [{key}.NAME]"))
        else {
            return Vec::new();
        };
        let mut named = Vec::new();
        let mut items: Vec<(&At<DeString<'_>>, &At<DeValue<'_>>)> = all.table.iter().collect();
        items.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in items {
            let place = self.place(name);
            match value.get_ref() {
                DeValue::Table(table) => {
                    let name = Spanned::new(name.get_ref().to_string(), place);
                    if let Err(problem) = check_name(if key == "api" { "an API" } else { key }, &name) {
                        self.findings.problem(place, problem);
                    }
                    let what = format!("[{key}.{}]", &*name);
                    named.push((name, Section { what, preposition: "in", place, table }));
                }
                _ => self.findings.error(
                    place,
                    format!(
                        "unknown key {} in [{key}]: each {key} has a table with its name",
                        quote(name.get_ref())
                    ),
                    format!("write [{key}.NAME] above it"),
                ),
            }
        }
        named
    }

    fn wrong_type(
        &mut self,
        section: &Section<'_>,
        key: &str,
        place: Place,
        wanted: &str,
        found: &DeValue<'_>,
        help: String,
    ) {
        let found = match found {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let Section { what, preposition, .. } = section;
        let message = format!("\"{key}\" {preposition} {what} must be {wanted}, not {found}");
        self.findings.error(place, message, help);
    }
}

#[cfg(test)]
type KnownKeys = std::collections::BTreeMap<String, std::collections::BTreeSet<String>>;

#[cfg(test)]
thread_local! {
    static KNOWN: std::cell::RefCell<KnownKeys> = std::cell::RefCell::default();
}

#[cfg(test)]
fn note_keys(section: &str, known: &[&str]) {
    KNOWN.with_borrow_mut(|all| {
        let keys = all.entry(section.to_owned()).or_default();
        keys.extend(known.iter().map(|key| (*key).to_owned()));
    });
}

/// The keys that were known in each table that was read meanwhile.
#[cfg(test)]
pub(crate) fn known_keys(read: impl FnOnce()) -> KnownKeys {
    KNOWN.take();
    read();
    KNOWN.take()
}

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// Whether a name is one that can stand in messages, journals and command lines as it is.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.chars().all(plain) && name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(Problem::new(
        format!("{} is not a name for {what}", quote(name)),
        format!(
            "a name has letters, digits, - _ and . (at most {MAX_NAME}), and begins with a letter or digit"
        ),
    ))
}
