//! The splitter against an independent decoder, however the bytes are cut.

use bytes::Bytes;
use futures_util::StreamExt as _;
use honshu_provider::{Splitter, TooLong};
use proptest::prelude::*;

fn split(body: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut splitter = Splitter::new(1 << 20);
    let mut events = Vec::new();
    let mut from = 0;
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    for cut in cuts {
        splitter.push(Bytes::copy_from_slice(&body[from..cut]));
        from = cut;
        while let Some(data) = splitter.next().unwrap() {
            events.push(String::from_utf8(data.to_vec()).unwrap());
        }
    }
    events
}

fn reference(body: &[u8]) -> Vec<String> {
    let chunks = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(
        Bytes::copy_from_slice(body),
    )]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        sse_stream::SseStream::from_bytes_stream(chunks)
            .filter_map(async |event| event.unwrap().data)
            .filter(|data| std::future::ready(!data.is_empty()))
            .collect()
            .await
    })
}

fn stream_bytes() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => "[a-zé日{}\":, ]{0,20}".prop_map(|text| format!("data: {text}")),
        1 => "[a-z]{0,5}".prop_map(|text| format!("data:{text}")),
        1 => Just("data".to_owned()),
        1 => "[a-z]{1,5}".prop_map(|text| format!("event: {text}")),
        1 => "[a-z ]{0,5}".prop_map(|text| format!(": {text}")),
        1 => Just("data: [DONE]".to_owned()),
        1 => Just("database: no".to_owned()),
        3 => Just(String::new()),
    ];
    let end = prop_oneof![4 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\r")];
    proptest::collection::vec((line, end), 0..40).prop_map(|lines| {
        let mut text = String::new();
        for (line, end) in lines {
            text.push_str(&line);
            text.push_str(end);
        }
        text.push_str("\n\n");
        text.into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_cut_of_the_bytes_gives_the_events_of_an_independent_decoder(
        body in stream_bytes(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let whole = split(&body, &[]);
        prop_assert_eq!(&whole, &reference(&body));
        prop_assert_eq!(&whole, &split(&body, &cuts));
    }
}

#[test]
fn every_byte_may_be_a_chunk() {
    let body = "\u{FEFF}data: {\"a\":1}\r\n\r\n: hello\n\ndata: zwei\ndata: drei\n\nevent: x\ndata:日本\r\rdata: [DONE]\n\n";
    let cuts: Vec<usize> = (0..body.len()).collect();
    let expected = ["{\"a\":1}", "zwei\ndrei", "日本", "[DONE]"];
    assert_eq!(split(body.as_bytes(), &cuts), expected);
    assert_eq!(split(body.as_bytes(), &[]), expected);
}

#[test]
fn a_missing_blank_line_at_the_end_is_forgiven_and_size_is_not() {
    let mut splitter = Splitter::new(64);
    splitter.push(Bytes::from_static(b"data: one\n\ndata: [DONE]"));
    assert_eq!(splitter.next().unwrap().unwrap(), "one");
    assert_eq!(splitter.next(), Ok(None));
    assert_eq!(splitter.finish().unwrap(), "[DONE]");
    assert_eq!(splitter.finish(), None);

    let mut splitter = Splitter::new(64);
    let mut outcome = Ok(None);
    for _ in 0..20 {
        splitter.push(Bytes::from_static(b"data: 12345\n"));
        outcome = splitter.next();
        if outcome.is_err() {
            break;
        }
    }
    assert_eq!(outcome, Err(TooLong), "many short lines of one event");
    let mut splitter = Splitter::new(64);
    splitter.push(Bytes::from(vec![b'x'; 65]));
    assert_eq!(splitter.next(), Err(TooLong), "one long line");
}
