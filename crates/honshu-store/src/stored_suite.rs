//! What any store of responses, conversations and files has to do, as cases that run against every
//! implementation. Each case gets a fresh store.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a case that fails panics: this module is a test"
)]

mod completions;
mod files;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use honshu_domain::{
    Anchor, CompletionStore, EndedResponse, EventSegment, FileStore, Ocid, Page, QueuedResponse,
    RawJson, ResponseStore, Scope, StoredConversation, StoredItem, StoredStatus, Timestamp,
};

/// Runs every case. `fresh` makes an empty store.
///
/// # Panics
/// When the store does not do what it has to.
pub async fn run<S, F>(fresh: impl Fn() -> F)
where
    S: ResponseStore + FileStore + CompletionStore,
    F: Future<Output = S>,
{
    what_is_kept_is_read_back_in_its_scope_only(&fresh().await).await;
    a_chain_reads_back_whole_and_forks_share_what_came_before(&fresh().await).await;
    a_chain_with_a_deleted_link_cannot_be_continued(&fresh().await).await;
    only_whole_answers_can_be_continued(&fresh().await).await;
    lists_are_paged_in_both_directions(&fresh().await).await;
    a_background_response_lives_from_queue_to_end(&fresh().await).await;
    a_background_response_that_is_deleted_ends_nowhere(&fresh().await).await;
    conversations_take_turns_and_lose_single_items(&fresh().await).await;
    a_deleted_conversation_leaves_its_responses(&fresh().await).await;
    what_is_old_is_forgotten_in_portions(&fresh().await).await;
    files::run(&fresh).await;
    completions::run(&fresh().await).await;
}

/// A scope of the compartment `name`.
#[must_use]
pub fn scope(name: &str) -> Scope {
    Scope {
        region: "local-1".into(),
        compartment: Ocid::parse(&format!("ocid1.compartment.oc1..{name}")).expect("an OCID"),
        project: None,
    }
}

/// An item whose text is its id.
#[must_use]
pub fn item(id: &str) -> StoredItem {
    StoredItem {
        id: id.into(),
        json: RawJson::parse(&format!("{{\"id\":\"{id}\",\"text\":\"{id}\"}}")).expect("JSON"),
    }
}

/// An ended response with one item in and one out, named after it.
#[must_use]
pub fn ended(scope: &Scope, id: &str, after: Option<Anchor>) -> EndedResponse {
    EndedResponse {
        scope: scope.clone(),
        id: id.into(),
        created: at(10),
        status: StoredStatus::Completed,
        after,
        conversation: None,
        object: RawJson::parse(&format!("{{\"id\":\"{id}\"}}")).expect("JSON"),
        input: vec![item(&format!("{id}-in"))],
        output: vec![item(&format!("{id}-out"))],
        events: Vec::new(),
        was_queued: false,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn segment(first: u64, count: u64) -> EventSegment {
    EventSegment {
        first,
        count,
        frames: Bytes::from(format!("{first}+{count}")),
    }
}

fn queued(scope: &Scope, id: &str) -> QueuedResponse {
    QueuedResponse {
        scope: scope.clone(),
        id: id.into(),
        created: at(10),
        after: None,
        conversation: None,
        object: RawJson::parse("{\"status\":\"queued\"}").expect("JSON"),
        input: vec![item(&format!("{id}-in"))],
        work: Bytes::from_static(b"work"),
        events: segment(0, 2),
    }
}

fn page(after: Option<&str>, limit: u32, ascending: bool) -> Page {
    Page {
        after: after.map(str::to_owned),
        limit,
        ascending,
    }
}

fn ids(items: &[StoredItem]) -> Vec<&str> {
    items.iter().map(|item| &*item.id).collect()
}

async fn keep(store: &impl ResponseStore, response: EndedResponse) {
    assert!(store.end(response).await.expect("kept"));
}

async fn anchor(store: &impl ResponseStore, scope: &Scope, id: &str) -> Option<Anchor> {
    let history = store.history(scope, id).await.expect("read");
    history.map(|history| history.anchor)
}

async fn history(store: &impl ResponseStore, scope: &Scope, id: &str) -> Vec<Arc<str>> {
    let history = store.history(scope, id).await.expect("read");
    let Some(history) = history else {
        panic!("{id} has no history");
    };
    history.items.into_iter().map(|item| item.id).collect()
}

async fn what_is_kept_is_read_back_in_its_scope_only(store: &(impl ResponseStore + FileStore)) {
    let mine = scope("mine");
    let theirs = scope("theirs");
    let project = Scope {
        project: Some(Ocid::parse("ocid1.generativeaiproject.oc1..p").expect("an OCID")),
        ..mine.clone()
    };
    assert!(store.response(&mine, "r").await.expect("read").is_none());
    let mut response = ended(&mine, "r", None);
    response.events = vec![segment(0, 3), segment(3, 4)];
    keep(store, response).await;
    // The other scopes exist, so that it is not their absence that hides anything.
    keep(store, ended(&theirs, "t", None)).await;
    keep(store, ended(&project, "p", None)).await;
    let read = store.response(&mine, "r").await.expect("read");
    let read = read.expect("it is there");
    assert_eq!(read.object.get(), "{\"id\":\"r\"}");
    assert_eq!(ids(&read.output), ["r-out"]);
    assert_eq!(read.status, StoredStatus::Completed);
    assert!(read.has_events && !read.background);
    let (events, last) = store
        .events(&mine, "r", None)
        .await
        .expect("read")
        .expect("they are there");
    assert_eq!(events, [segment(0, 3), segment(3, 4)]);
    assert!(last);
    let (events, _) = store
        .events(&mine, "r", Some(2))
        .await
        .expect("read")
        .expect("they are there");
    assert_eq!(events, [segment(3, 4)]);
    let found = store
        .items(&mine, vec!["r-out".into(), "t-in".into(), "x".into()])
        .await
        .expect("read");
    assert_eq!(ids(&found), ["r-out"]);
    for other in [&theirs, &project] {
        assert!(store.response(other, "r").await.expect("read").is_none());
        assert!(store.history(other, "r").await.expect("read").is_none());
        assert!(
            store
                .events(other, "r", None)
                .await
                .expect("read")
                .is_none()
        );
        let items = store.input_items(other, "r", page(None, 9, true)).await;
        assert!(items.expect("read").is_none());
        let items = store.items(other, vec!["r-out".into()]).await;
        assert!(items.expect("read").is_empty());
        assert!(!store.delete_response(other, "r").await.expect("tried"));
    }
    assert!(store.response(&mine, "r").await.expect("read").is_some());
}

async fn a_chain_reads_back_whole_and_forks_share_what_came_before(store: &impl ResponseStore) {
    let mine = scope("mine");
    keep(store, ended(&mine, "a", None)).await;
    let a = anchor(store, &mine, "a").await;
    keep(store, ended(&mine, "b", a)).await;
    // Two forks of one turn, and a fork of a fork.
    keep(store, ended(&mine, "c", a)).await;
    let b = anchor(store, &mine, "b").await;
    let c = anchor(store, &mine, "c").await;
    keep(store, ended(&mine, "d", c)).await;
    keep(store, ended(&mine, "e", c)).await;
    keep(store, ended(&mine, "f", b)).await;
    let shared = ["a-in", "a-out"];
    let with = |more: &[&str]| -> Vec<Arc<str>> {
        shared.iter().chain(more).map(|id| (*id).into()).collect()
    };
    assert_eq!(
        history(store, &mine, "f").await,
        with(&["b-in", "b-out", "f-in", "f-out"])
    );
    assert_eq!(
        history(store, &mine, "d").await,
        with(&["c-in", "c-out", "d-in", "d-out"])
    );
    assert_eq!(
        history(store, &mine, "e").await,
        with(&["c-in", "c-out", "e-in", "e-out"])
    );
    // What came later is not seen from an earlier turn.
    assert_eq!(history(store, &mine, "a").await, with(&[]));
}

async fn a_chain_with_a_deleted_link_cannot_be_continued(store: &impl ResponseStore) {
    let mine = scope("mine");
    let mut last = None;
    for id in ["a", "b", "c"] {
        keep(store, ended(&mine, id, last)).await;
        last = anchor(store, &mine, id).await;
    }
    let a = anchor(store, &mine, "a").await;
    keep(store, ended(&mine, "fork", a)).await;
    assert!(store.delete_response(&mine, "b").await.expect("deleted"));
    assert!(!store.delete_response(&mine, "b").await.expect("tried"));
    assert!(store.response(&mine, "b").await.expect("read").is_none());
    let gone = store
        .items(&mine, vec!["b-in".into(), "b-out".into()])
        .await;
    assert!(
        gone.expect("read").is_empty(),
        "its items are deleted with it"
    );
    assert!(store.history(&mine, "c").await.expect("read").is_none());
    assert!(store.response(&mine, "c").await.expect("read").is_some());
    assert_eq!(history(store, &mine, "fork").await.len(), 4);
    assert!(store.delete_response(&mine, "a").await.expect("deleted"));
    assert!(store.history(&mine, "fork").await.expect("read").is_none());
    // A turn that was under way while the one it continues was deleted is kept and leads nowhere.
    keep(store, ended(&mine, "late", a)).await;
    assert!(store.history(&mine, "late").await.expect("read").is_none());
    // Threads that nothing needs any more go, and no later one takes their place.
    for id in ["c", "fork", "late"] {
        assert!(store.delete_response(&mine, id).await.expect("deleted"));
    }
    keep(store, ended(&mine, "new", None)).await;
    assert_eq!(history(store, &mine, "new").await.len(), 2);
    keep(store, ended(&mine, "lost", a)).await;
    assert!(store.history(&mine, "lost").await.expect("read").is_none());
}

async fn only_whole_answers_can_be_continued(store: &impl ResponseStore) {
    let mine = scope("mine");
    for (status, can) in [
        (StoredStatus::Completed, true),
        (StoredStatus::Incomplete, true),
        (StoredStatus::Failed, false),
        (StoredStatus::Cancelled, false),
    ] {
        let mut response = ended(&mine, status.as_str(), None);
        response.status = status;
        keep(store, response).await;
        let found = store.history(&mine, status.as_str()).await.expect("read");
        assert_eq!(found.is_some(), can, "{status:?}");
    }
}

async fn lists_are_paged_in_both_directions(store: &impl ResponseStore) {
    let mine = scope("mine");
    let mut response = ended(&mine, "r", None);
    response.input = ["1", "2", "3"].map(item).into();
    keep(store, response).await;
    for (after, limit, ascending, expected, more) in [
        (None, 2, true, &["1", "2"][..], true),
        (Some("2"), 2, true, &["3"], false),
        (None, 3, true, &["1", "2", "3"], false),
        (None, 2, false, &["3", "2"], true),
        (Some("2"), 2, false, &["1"], false),
        (Some("x"), 2, false, &[], false),
        // The output is not part of the input.
        (Some("3"), 9, true, &[], false),
    ] {
        let paged = store
            .input_items(&mine, "r", page(after, limit, ascending))
            .await
            .expect("read")
            .expect("it is there");
        assert_eq!(ids(&paged.data), expected);
        assert_eq!(paged.has_more, more, "after {after:?}");
    }
}

async fn a_background_response_lives_from_queue_to_end(store: &impl ResponseStore) {
    let mine = scope("mine");
    store.queue(queued(&mine, "r")).await.expect("queued");
    let read = store.response(&mine, "r").await.expect("read");
    let read = read.expect("it is there");
    assert_eq!((read.status, read.background), (StoredStatus::Queued, true));
    let unfinished = store.unfinished().await.expect("read");
    let [one] = unfinished.as_slice() else {
        panic!("one is unfinished: {unfinished:?}");
    };
    assert_eq!(
        (&*one.id, one.next_event, &one.work[..]),
        ("r", 2, &b"work"[..])
    );
    assert_eq!((one.created, &one.scope), (at(10), &mine));
    assert!(
        store
            .append_events(&mine, "r", segment(2, 5))
            .await
            .expect("kept")
    );
    let (events, last) = store
        .events(&mine, "r", Some(3))
        .await
        .expect("read")
        .expect("they are there");
    assert_eq!((events, last), (vec![segment(2, 5)], false));
    let read = store.response(&mine, "r").await.expect("read");
    assert_eq!(read.expect("it is there").status, StoredStatus::InProgress);
    assert_eq!(store.unfinished().await.expect("read")[0].next_event, 7);
    assert!(store.history(&mine, "r").await.expect("read").is_none());
    let mut end = ended(&mine, "r", None);
    end.was_queued = true;
    end.events = vec![segment(7, 1)];
    keep(store, end.clone()).await;
    assert_eq!(
        history(store, &mine, "r").await,
        ["r-in".into(), "r-out".into()]
    );
    let (events, last) = store
        .events(&mine, "r", Some(6))
        .await
        .expect("read")
        .expect("they are there");
    assert_eq!((events, last), (vec![segment(7, 1)], true));
    assert!(store.unfinished().await.expect("read").is_empty());
    // It ends once.
    assert!(!store.end(end).await.expect("tried"));
    assert!(
        !store
            .append_events(&mine, "r", segment(8, 1))
            .await
            .expect("tried")
    );
}

async fn a_background_response_that_is_deleted_ends_nowhere(store: &impl ResponseStore) {
    let mine = scope("mine");
    store.queue(queued(&mine, "r")).await.expect("queued");
    assert!(store.delete_response(&mine, "r").await.expect("deleted"));
    assert!(
        !store
            .append_events(&mine, "r", segment(2, 1))
            .await
            .expect("tried")
    );
    let mut end = ended(&mine, "r", None);
    end.was_queued = true;
    assert!(!store.end(end).await.expect("tried"));
    assert!(store.response(&mine, "r").await.expect("read").is_none());
    assert!(store.unfinished().await.expect("read").is_empty());
}

fn conversation(id: &str) -> StoredConversation {
    StoredConversation {
        id: id.into(),
        created: at(5),
        metadata: RawJson::parse("{\"a\":\"b\"}").expect("JSON"),
    }
}

async fn conversations_take_turns_and_lose_single_items(store: &impl ResponseStore) {
    let (mine, theirs) = (scope("mine"), scope("theirs"));
    store
        .create_conversation(&mine, conversation("c"), vec![item("1")])
        .await
        .expect("made");
    keep(store, ended(&theirs, "t", None)).await;
    assert_eq!(
        store.conversation(&mine, "c").await.expect("read"),
        Some(conversation("c"))
    );
    let more = vec![item("2"), item("3")];
    assert!(
        store
            .add_conversation_items(&mine, "c", more, at(6))
            .await
            .expect("added")
    );
    let mut turn = ended(&mine, "r", None);
    turn.conversation = Some("c".into());
    keep(store, turn).await;
    let mut failed = ended(&mine, "f", None);
    failed.conversation = Some("c".into());
    failed.status = StoredStatus::Failed;
    keep(store, failed).await;
    let all = store.conversation_history(&mine, "c").await.expect("read");
    assert_eq!(
        ids(&all.expect("it is there").items),
        ["1", "2", "3", "r-in", "r-out"],
        "a failed turn adds nothing"
    );
    assert!(
        store
            .delete_conversation_item(&mine, "c", "2")
            .await
            .expect("deleted")
    );
    assert!(
        !store
            .delete_conversation_item(&mine, "c", "2")
            .await
            .expect("tried")
    );
    let one = |id: &str| store.conversation_item(&mine, "c", id);
    assert!(one("2").await.expect("read").is_none());
    assert_eq!(one("3").await.expect("read"), Some(item("3")));
    let paged = store
        .conversation_items(&mine, "c", page(Some("1"), 2, true))
        .await
        .expect("read")
        .expect("it is there");
    assert_eq!(ids(&paged.data), ["3", "r-in"]);
    assert!(paged.has_more);
    // A turn of a conversation can be continued by its id as well, and then sees what the conversation held.
    assert_eq!(
        history(store, &mine, "r").await,
        ["1", "3", "r-in", "r-out"].map(Arc::from)
    );
    let after = anchor(store, &mine, "r").await;
    keep(store, ended(&mine, "s", after)).await;
    assert_eq!(history(store, &mine, "s").await.len(), 6);
    let all = store.conversation_history(&mine, "c").await.expect("read");
    assert_eq!(
        all.expect("it is there").items.len(),
        4,
        "it stands outside"
    );
    let changed = store
        .set_conversation_metadata(&mine, "c", RawJson::parse("{}").expect("JSON"), at(7))
        .await
        .expect("changed");
    assert_eq!(changed.expect("it is there").metadata.get(), "{}");
    // Others see none of it.
    assert!(
        store
            .conversation(&theirs, "c")
            .await
            .expect("read")
            .is_none()
    );
    assert!(
        store
            .conversation_history(&theirs, "c")
            .await
            .expect("read")
            .is_none()
    );
    assert!(
        !store
            .add_conversation_items(&theirs, "c", vec![item("9")], at(8))
            .await
            .expect("tried")
    );
    assert!(
        !store
            .delete_conversation_item(&theirs, "c", "3")
            .await
            .expect("tried")
    );
    assert!(
        !store
            .delete_conversation(&theirs, "c")
            .await
            .expect("tried")
    );
    let items = store
        .conversation_items(&theirs, "c", page(None, 9, true))
        .await;
    assert!(items.expect("read").is_none());
}

async fn a_deleted_conversation_leaves_its_responses(store: &impl ResponseStore) {
    let mine = scope("mine");
    store
        .create_conversation(&mine, conversation("c"), vec![item("1")])
        .await
        .expect("made");
    let mut turn = ended(&mine, "r", None);
    turn.conversation = Some("c".into());
    keep(store, turn.clone()).await;
    assert!(
        store
            .delete_conversation(&mine, "c")
            .await
            .expect("deleted")
    );
    assert!(
        store
            .conversation(&mine, "c")
            .await
            .expect("read")
            .is_none()
    );
    let gone = store.items(&mine, vec!["1".into()]).await.expect("read");
    assert!(gone.is_empty());
    let read = store.response(&mine, "r").await.expect("read");
    assert_eq!(ids(&read.expect("it is there").output), ["r-out"]);
    assert!(store.history(&mine, "r").await.expect("read").is_none());
    // One that ends after its conversation went is kept by itself.
    turn.id = "late".into();
    keep(store, turn).await;
    assert!(store.response(&mine, "late").await.expect("read").is_some());
    assert!(store.history(&mine, "late").await.expect("read").is_none());
}

async fn what_is_old_is_forgotten_in_portions(store: &(impl ResponseStore + FileStore)) {
    let mine = scope("mine");
    for n in 0..5 {
        let mut response = ended(&mine, &format!("r{n}"), None);
        response.created = at(n);
        keep(store, response).await;
    }
    let mut waiting = queued(&mine, "waiting");
    waiting.created = at(0);
    store.queue(waiting).await.expect("queued");
    store
        .create_conversation(&mine, conversation("old"), vec![item("1")])
        .await
        .expect("made");
    store
        .create_conversation(&mine, conversation("used"), Vec::new())
        .await
        .expect("made");
    let more = vec![item("2")];
    assert!(
        store
            .add_conversation_items(&mine, "used", more, at(50))
            .await
            .expect("added")
    );
    let forget = || store.forget(at(4), at(20), at(0), 3);
    assert_eq!(
        forget().await.expect("done"),
        4,
        "three responses, a conversation"
    );
    assert_eq!(forget().await.expect("done"), 1);
    assert_eq!(forget().await.expect("done"), 0);
    assert!(store.response(&mine, "r3").await.expect("read").is_none());
    assert!(store.response(&mine, "r4").await.expect("read").is_some());
    assert!(
        store
            .response(&mine, "waiting")
            .await
            .expect("read")
            .is_some()
    );
    assert!(
        store
            .conversation(&mine, "old")
            .await
            .expect("read")
            .is_none()
    );
    assert!(
        store
            .conversation(&mine, "used")
            .await
            .expect("read")
            .is_some()
    );
}
