//! Values as people write them in a configuration.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time, written as `1s`, `500ms` or `1m 30s` (the notation of the crate `humantime`).
///
/// A bare number is refused: it would not say whether it counts seconds or milliseconds. So is more than a
/// year: what is meant to be for ever is off or 0 where there is such a thing, and to add a few centuries
/// to the time of now panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(Duration);

/// A year, leap or not.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

// === impl HumanDuration ===

impl HumanDuration {
    /// So many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// So many seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The same as the standard library has it.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Deref for HumanDuration {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        if duration > LONGEST {
            return Err(format!("`{text}` is longer than a year"));
        }
        Ok(Self(duration))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| D::Error::custom(format!("{error} (write `1s`, `500ms` or `1m 30s`)")))
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "HumanDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A length of time: `1s`, `500ms`, `1m 30s`.",
            "examples": ["1s", "500ms", "1m 30s"],
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_and_written_as_people_write_it() {
        let read: HumanDuration = serde_json::from_str(r#""1m 30s""#).expect("it is a duration");
        assert_eq!(read.get(), Duration::from_secs(90));
        assert_eq!(serde_json::to_string(&read).expect("it is a string"), r#""1m 30s""#);
        assert_eq!(HumanDuration::from_millis(1500).to_string(), "1s 500ms");
    }

    #[test]
    fn what_no_clock_can_reach_is_refused() {
        for text in ["1year", "366days"] {
            assert!(text.parse::<HumanDuration>().is_ok(), "{text}");
        }
        for text in ["367days", "584years", "18446744073709551615s"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_refused() {
        for text in ["5", r#""5""#, r#""""#, r#""5 parsecs""#] {
            assert!(serde_json::from_str::<HumanDuration>(text).is_err(), "{text}");
        }
    }
}
