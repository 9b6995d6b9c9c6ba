//! `json.dumps` as Python writes it: chat templates print tools with it, and a missing space is
//! another token.

use std::io;

use minijinja::{Error, ErrorKind, Value, value::Kwargs};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// `", "` between items and `": "` after keys: Python's default separators.
struct PythonFormatter;

// === impl PythonFormatter ===

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// The `tojson` filter of transformers' chat templates:
/// `json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let ensure_ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    let separators: Option<(String, String)> =
        match kwargs.get::<Option<Vec<String>>>("separators")? {
            Some(pair) => <[String; 2]>::try_from(pair).ok().map(|[item, key]| (item, key)),
            None => None,
        };
    let sort_keys: Option<bool> = kwargs.get("sort_keys")?;
    kwargs.assert_all_used()?;
    if sort_keys == Some(true) || ensure_ascii == Some(true) {
        return Err(refuse("tojson: sort_keys and ensure_ascii are not supported"));
    }
    match (indent, separators) {
        (Some(width), None) => {
            write(value, PrettyFormatter::with_indent(" ".repeat(width).as_bytes()))
        }
        (None, None) => write(value, PythonFormatter),
        (None, Some((item, key))) if item == "," && key == ":" => {
            write(value, serde_json::ser::CompactFormatter)
        }
        _ => Err(refuse("tojson: these separators are not supported")),
    }
}

fn write(value: &Value, formatter: impl Formatter) -> Result<String, Error> {
    let mut bytes = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        .map_err(|error| refuse("tojson: cannot serialise").with_source(error))?;
    String::from_utf8(bytes).map_err(|error| refuse("tojson: not UTF-8").with_source(error))
}

fn refuse(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
