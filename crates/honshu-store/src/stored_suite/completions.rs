//! Chat completions that were asked to be kept.

use honshu_domain::{
    CompletionFilter, CompletionStore, RawJson, ResponseStore, StoredCompletion, StoredItem,
};

use super::{at, item, page, scope};

fn json(text: &str) -> RawJson {
    RawJson::parse(text).expect("JSON")
}

fn completion(id: &str, model: &str, metadata: &str, created: i64) -> StoredCompletion {
    StoredCompletion {
        id: id.into(),
        created: at(created),
        model: model.into(),
        model_asked: format!("{model}-alias").into(),
        metadata: json(metadata),
        object: json(&format!("{{\"id\":\"{id}\"}}")),
    }
}

/// Kept, listed, filtered, changed, deleted, forgotten; and nothing of it in another scope.
pub(super) async fn run(store: &(impl CompletionStore + ResponseStore)) {
    let (mine, theirs) = (scope("mine"), scope("theirs"));
    let nothing = CompletionFilter::default();
    let empty = store.completions(&mine, nothing.clone(), page(None, 9, true));
    assert_eq!(empty.await.expect("read").expect("a page").data, []);
    let all = [
        completion("a", "one", "{}", 1),
        completion("b", "two", r#"{"app":"x","a\"].$[b":"it's"}"#, 2),
        completion("c", "one", r#"{"app":"x"}"#, 3),
        completion("d", "one", r#"{"app":"y","n":"1"}"#, 4),
    ];
    for kept in &all {
        let messages: Vec<StoredItem> = (0..3).map(|n| item(&format!("{}-{n}", kept.id))).collect();
        let put = store.put_completion(&mine, kept.clone(), messages);
        put.await.expect("kept");
    }
    let stranger = completion("t", "one", "{}", 1);
    let put = store.put_completion(&theirs, stranger, Vec::new());
    put.await.expect("kept");
    let read = store.completion(&mine, "b").await.expect("read");
    assert_eq!(read.as_ref(), Some(&all[1]));
    assert_eq!(store.completion(&theirs, "b").await.expect("read"), None);

    let list = async |model: Option<&str>, pairs: &[(&str, &str)], page| {
        let filter = CompletionFilter {
            model: model.map(ToOwned::to_owned),
            metadata: pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let paged = store.completions(&mine, filter, page).await.expect("read");
        paged.map(|paged| {
            let ids: Vec<String> = paged.data.iter().map(|one| one.id.to_string()).collect();
            (ids.join(""), paged.has_more)
        })
    };
    let found = |ids: &str, more| Some((ids.to_owned(), more));
    for (model, pairs, after, limit, ascending, expected) in [
        (None, &[][..], None, 9, true, found("abcd", false)),
        (None, &[], None, 3, false, found("dcb", true)),
        (None, &[], Some("b"), 1, false, found("a", false)),
        (None, &[], Some("b"), 2, true, found("cd", false)),
        (Some("one"), &[], None, 2, true, found("ac", true)),
        (Some("two-alias"), &[], None, 9, true, found("b", false)),
        (Some("three"), &[], None, 9, true, found("", false)),
        (None, &[("app", "x")], None, 9, true, found("bc", false)),
        (
            Some("one"),
            &[("app", "x")],
            None,
            9,
            true,
            found("c", false),
        ),
        (
            None,
            &[("app", "y"), ("n", "1")],
            None,
            9,
            true,
            found("d", false),
        ),
        (
            None,
            &[("app", "y"), ("n", "2")],
            None,
            9,
            true,
            found("", false),
        ),
        (
            None,
            &[("a\"].$[b", "it's")],
            None,
            9,
            true,
            found("b", false),
        ),
        (None, &[], Some("t"), 9, true, None),
        (None, &[], Some("nothing"), 9, true, None),
    ] {
        let got = list(model, pairs, page(after, limit, ascending)).await;
        assert_eq!(got, expected, "{model:?} {pairs:?} {after:?}");
    }

    let messages = async |scope, id: &str, after, limit, ascending| {
        let page = page(after, limit, ascending);
        let paged = store
            .completion_messages(scope, id, page)
            .await
            .expect("read");
        paged.map(|inner| {
            inner.map(|paged| {
                let ids: Vec<String> = paged.data.iter().map(|one| one.id.to_string()).collect();
                (ids.join(" "), paged.has_more)
            })
        })
    };
    assert_eq!(
        messages(&mine, "a", None, 2, true).await,
        Some(Some(("a-0 a-1".to_owned(), true)))
    );
    assert_eq!(
        messages(&mine, "a", Some("a-1"), 2, true).await,
        Some(Some(("a-2".to_owned(), false)))
    );
    assert_eq!(
        messages(&mine, "a", None, 9, false).await,
        Some(Some(("a-2 a-1 a-0".to_owned(), false)))
    );
    assert_eq!(messages(&mine, "a", Some("b-1"), 2, true).await, Some(None));
    assert_eq!(messages(&theirs, "a", None, 2, true).await, None);

    let new = json(r#"{"app":"z"}"#);
    let changed = store.set_completion_metadata(&mine, "a", new.clone());
    assert_eq!(changed.await.expect("done").expect("there").metadata, new);
    let changed = store.set_completion_metadata(&theirs, "a", new);
    assert_eq!(changed.await.expect("done"), None);
    assert_eq!(
        list(None, &[("app", "z")], page(None, 9, true)).await,
        found("a", false)
    );

    assert!(!store.delete_completion(&theirs, "a").await.expect("tried"));
    assert!(store.delete_completion(&mine, "a").await.expect("deleted"));
    assert!(!store.delete_completion(&mine, "a").await.expect("tried"));
    assert_eq!(store.completion(&mine, "a").await.expect("read"), None);
    assert_eq!(messages(&mine, "a", None, 2, true).await, None);

    // What is old goes with the job that forgets responses, of every scope.
    let forget = || store.forget(at(4), at(0), at(0), 2);
    assert_eq!(forget().await.expect("done"), 2);
    assert_eq!(forget().await.expect("done"), 1);
    assert_eq!(forget().await.expect("done"), 0);
    assert_eq!(
        list(None, &[], page(None, 9, true)).await,
        found("d", false)
    );
}
