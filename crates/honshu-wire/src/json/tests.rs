//! The reader against `serde_json`, and the things in which it must be stricter.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn to_value(node: &Node<'_>) -> serde_json::Value {
    match &node.kind {
        Kind::Null => serde_json::Value::Null,
        Kind::Bool(value) => (*value).into(),
        Kind::Number => serde_json::from_str(node.raw).unwrap(),
        Kind::String(text) => text.as_ref().into(),
        Kind::Array(list) => list.iter().map(to_value).collect(),
        Kind::Object(list) => list
            .iter()
            .map(|(key, value)| (key.to_string(), to_value(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

#[test]
fn what_is_not_acceptable_is_refused_with_its_place() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    for (text, what, path) in [
        ("", "unexpected end of the JSON text", ""),
        ("{\"a\":1,\"a\":2}", "duplicate key", "a"),
        (
            "{\"x\":[{\"a\":1,\"\\u0061\":2}]}",
            "duplicate key",
            "x[0].a",
        ),
        ("{\"a\":{\"b\":1e400}}", "a number out of range", "a.b"),
        ("{\"a\":[1,NaN]}", "expected a JSON value", "a[1]"),
        ("[\"\\ud800\"]", "half of a surrogate pair", "[0]"),
        ("[\"\\udc00\"]", "half of a surrogate pair", "[0]"),
        ("[\"\\ud800\\u0041\"]", "half of a surrogate pair", "[0]"),
        ("[\"a\nb\"]", "a control character inside a string", "[0]"),
        ("{} {}", "text after the end of the JSON value", ""),
        ("[01]", "expected `,` or `]`", ""),
        ("[1,]", "expected a JSON value", "[1]"),
        ("{\"a\":1,}", "expected a key in double quotes", ""),
        ("\u{feff}{}", "expected a JSON value", ""),
    ] {
        let fault = parse(text.as_bytes()).unwrap_err();
        assert_eq!((fault.what, fault.path().as_str()), (what, path), "{text}");
    }
    assert!(parse(deep(127).as_bytes()).is_ok());
    assert!(parse(deep(128).as_bytes()).is_err());
    assert!(serde_json::from_str::<serde_json::Value>(&deep(127)).is_ok());
    let fault = parse(b"{\"a\":\"\xff\"}").unwrap_err();
    assert_eq!((fault.what, fault.at), ("invalid UTF-8", 6));
}

#[test]
fn duplicate_keys_are_found_among_many() {
    let keys: Vec<String> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
    let good = format!("{{{}}}", keys.join(","));
    assert!(parse(good.as_bytes()).is_ok());
    for twice in [0, 23, 24, 25, 99] {
        let bad = format!("{{{},\"k{twice}\":0}}", keys.join(","));
        assert_eq!(parse(bad.as_bytes()).unwrap_err().what, "duplicate key");
    }
}

#[test]
fn wide_bodies_end_at_the_bound() {
    let wide = format!("[{}0]", "0,".repeat(VALUES_MAX));
    assert!(parse(wide.as_bytes()).is_err());
}

#[test]
fn special_bytes_are_found_at_every_place_and_distance() {
    for length in 0..80 {
        for special in [b'"', b'\\', 0, 0x1f] {
            for place in 0..length {
                let mut bytes = vec![b'x'; length];
                bytes[place] = special;
                // Bytes above 0x7f must not be taken for special ones.
                bytes.iter_mut().take(place).for_each(|b| *b = 0xe3);
                assert_eq!(find(&bytes), place);
            }
        }
        assert_eq!(find(&vec![0x7f; length]), length);
        assert_eq!(find(&vec![0x80; length]), length);
    }
    fn find(bytes: &[u8]) -> usize {
        super::scan::find_special(bytes, 0)
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[\"\\\\/\u{0}-\u{20}a😀é]{0,50}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn values_read_as_serde_json_reads_them(value in json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let node = parse_text(&text).unwrap();
        // serde_json's own reading, since its numbers lose their last digit on a round trip.
        prop_assert_eq!(to_value(&node), serde_json::from_str::<serde_json::Value>(&text).unwrap());
        prop_assert_eq!(node.raw, text.as_str());
        prop_assert_eq!(Reader::new(&text).skip().unwrap(), 0..text.len());
    }

    #[test]
    fn damaged_text_is_judged_as_serde_json_judges_it(value in json(), at: prop::sample::Index, with in "[\\\\\"{}\\[\\],:0-9eE.+\\-a-z \u{0}-\u{20}]{0,3}", cut in 0_usize..3) {
        let mut text = serde_json::to_string(&value).unwrap();
        let mut at = at.index(text.len());
        while !text.is_char_boundary(at) { at -= 1; }
        let mut end = (at + cut).min(text.len());
        while !text.is_char_boundary(end) { end += 1; }
        text.replace_range(at..end, &with);
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match parse_text(&text) {
            Ok(node) => prop_assert_eq!(Some(to_value(&node)), theirs.ok()),
            Err(fault) => prop_assert!(theirs.is_err() || fault.what == "duplicate key", "{:?} {}", fault, text),
        }
    }

    #[test]
    fn written_strings_read_back(text in any::<String>()) {
        let mut out = BytesMut::new();
        put_str(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}

#[test]
fn a_whole_number_may_be_written_with_a_point_or_an_exponent() {
    for (text, wanted) in [
        ("16", Some(16)),
        ("16.0", Some(16)),
        ("-0.0", Some(0)),
        ("1.6e1", Some(16)),
        ("9223372036854775807", Some(i64::MAX)),
        ("9007199254740991.0", Some(9_007_199_254_740_991)),
        ("9007199254740992.0", None),
        ("9223372036854775808", None),
        ("16.5", None),
        ("1e-1", None),
        ("1e300", None),
        ("true", None),
        ("\"16\"", None),
    ] {
        assert_eq!(parse_text(text).unwrap().as_i64(), wanted, "{text}");
    }
}
