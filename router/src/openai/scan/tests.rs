use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::openai::text::{Text, meaning};

/// The whole text as one value.
fn scan(text: &str) -> Result<&str, BadJson> {
    let mut scanner = Scanner::new(text);
    scanner.peek();
    let value = scanner.spelled(|scanner| scanner.value(&mut Deaf))?;
    scanner.end()?;
    Ok(value)
}

/// What both parsers say of a text: its value's spelling, or nothing.
fn both(text: &str) -> (Option<&str>, Option<&str>) {
    (scan(text).ok(), serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get))
}

#[rustfmt::skip]
const TEXTS: [&str; 66] = [
    "", " ", "1", "-1", "-", "01", "-01", "0", "-0", "0.5", ".5", "5.", "1e5", "1e", "1E+5",
    "1e-", "1.5e-7x", "true", "tru", "truefalse", "null ", "NaN", "Infinity", "[]", "[1", "[1,]",
    "[,1]", "[1 2]", "[1,2] ", "{}", "{,}", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":1,}"#,
    r#"{"a":1,"b"}"#, r#"{"a":{"b":[{},[],""]}}"#, r#"{"a":1]"#, "[1}", r#"{a:1}"#, r#"{'a':1}"#,
    r#""a"#, r#""\"#, r#""\""#, r#""\\""#, r#""\x""#, r#""\u12""#, r#""\u12g4""#, r#""\ud800""#,
    "\"\n\"", "\"\u{7f}\"", "\"\0\"", "[1]x", "\u{feff}1", "//1", "{\"a\":1 /*x*/}",
    "\t\r\n[ 1 , 2 ]\n", "\u{a0}1", "1 1", "\"\\\u{e9}\"", "[\"a\":1]", "{\"a\":\"b\",}", "[[[[",
    "]", "}", ":", ",",
];

#[test]
fn the_grammar_is_serde_jsons() {
    for text in TEXTS {
        let (ours, theirs) = both(text);
        assert_eq!(ours, theirs, "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_text_of_json_characters_is_judged_as_serde_json_judges_it(
        parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\"a\"", "\"\\n\"", "1", "0", "-", ".", "e",
            "true", "null", " ", "\\u0041", "é", "\u{1}", "{\"k\":", "[1,",
        ]), 0..12),
    ) {
        let text = parts.concat();
        let (ours, theirs) = both(&text);
        prop_assert_eq!(ours, theirs, "{:?}", text);
    }

    #[test]
    fn a_string_means_what_serde_json_says(
        parts in prop::collection::vec(prop::sample::select(vec![
            "a", "é", "😀", "\\n", "\\\"", "\\\\", "\\/", "\\b", "\\f", "\\r", "\\t", "\\u0000",
            "\\u00e9", "\\ud83d", "\\ude00", "\\ud83d\\ude00", "\\uD83D\\u0041", "\\uffff",
        ]), 0..10),
    ) {
        let json = format!("\"{}\"", parts.concat());
        let ours = meaning(&json).ok();
        let theirs = serde_json::from_str::<String>(&json).ok();
        prop_assert_eq!(ours.as_deref(), theirs.as_deref());
    }

    #[test]
    fn a_text_is_spelled_as_serde_json_spells_it_however_it_came(
        parts in prop::collection::vec(prop::sample::select(vec![
            "a", "é", "😀", "\\n", "\\\"", "\\\\", "\\/", "\\b", "\\f", "\\r", "\\t", "\\u0000",
            "\\u00e9", "\\u000A", "\\u001F", "\\u005c", "\\u0022", "\\u007f", "\\ud83d\\ude00",
        ]), 0..10),
    ) {
        let json = format!("\"{}\"", parts.concat());
        let mut ours = String::new();
        Scanner::new(&json).value(&mut Text(&mut ours)).unwrap();
        let theirs = serde_json::to_string(&serde_json::from_str::<String>(&json).unwrap()).unwrap();
        prop_assert_eq!(ours.strip_suffix('\0'), Some(&theirs[1..theirs.len() - 1]));
    }
}
