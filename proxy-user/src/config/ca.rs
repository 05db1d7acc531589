//! `[ca]`: how long the CA of this host lasts, and for which hosts it is made ahead.

use std::time::Duration;

use proxy_policy::Host;
use serde::Deserialize;

use crate::base::duration;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `[ca]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ca {
    /// How long a generation is valid.
    #[serde(deserialize_with = "duration::deserialize_long")]
    pub lifetime: Duration,
    /// How long one goes on after the next was made.
    #[serde(deserialize_with = "duration::deserialize_long")]
    pub overlap: Duration,
    /// Names that it permits, each with all below it, whether or not a policy names them; and addresses.
    #[serde(deserialize_with = "names")]
    pub permit: Vec<String>,
}

impl Default for Ca {
    fn default() -> Self {
        Self { lifetime: 365 * DAY, overlap: 30 * DAY, permit: Vec::new() }
    }
}

impl Ca {
    /// What does not fit together, and what to do.
    pub(super) fn problem(&self) -> Option<String> {
        let days = |time: Duration| time.as_secs() / DAY.as_secs();
        match () {
            () if self.lifetime < 2 * DAY => Some("ca.lifetime must be at least 2d".to_owned()),
            () if self.overlap < HOUR => Some(
                "ca.overlap must be at least 1h: meanwhile stores and bots must come to the new roots"
                    .to_owned(),
            ),
            () if self.overlap > self.lifetime / 2 => Some(format!(
                "ca.overlap ({}d) must be at most half of ca.lifetime ({}d): make it shorter, or the lifetime longer",
                days(self.overlap),
                days(self.lifetime),
            )),
            () => None,
        }
    }
}

/// Host names and addresses in normal form.
fn names<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let parse = |text: &String| match Host::parse(text) {
        Ok(host) if host.port().is_some() => Err(format!("ca.permit has {text:?}: leave the port away")),
        Ok(host) => Ok(host.name().to_owned()),
        Err(error) => Err(format!(
            "ca.permit has {text:?}: {error}; write a name such as \"example.com\", which stands for all below it, too"
        )),
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(parse).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn parsed(table: &str) -> Result<Config, String> {
        Config::parse(Path::new("v.toml"), &format!("[ca]\n{table}")).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_read_in_one_spelling() {
        let config = parsed("permit = [\"Example.COM.\", \"192.0.2.1\", \"[2001:DB8::1]\"]").unwrap();
        assert_eq!(config.ca.permit, ["example.com", "192.0.2.1", "2001:db8::1"]);
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_to_do() {
        for (table, expected) in [
            ("lifetime = \"1h\"", "at least 2d"),
            ("lifetime = \"4000d\"", "out of range"),
            ("overlap = \"59m\"", "at least 1h"),
            (
                "lifetime = \"30d\"\noverlap = \"20d\"",
                "overlap (20d) must be at most half of ca.lifetime (30d)",
            ),
            ("permit = [\"*.example.com\"]", "stands for all below it, too"),
            ("permit = [\"example.com:443\"]", "leave the port away"),
            ("overlaps = \"1d\"", "unknown field"),
        ] {
            let error = parsed(table).unwrap_err();
            assert!(error.starts_with("v.toml:") && error.contains(expected), "{table}: {error}");
        }
    }
}
