//! Files: uploaded in pieces, listed, read, gone.

use std::future::Future;

use bytes::Bytes;
use honshu_domain::{FileStore, ResponseStore, Scope, StoredFile, UploadId};

use super::{at, page, scope};

pub(super) async fn run<S, F>(fresh: impl Fn() -> F)
where
    S: ResponseStore + FileStore,
    F: Future<Output = S>,
{
    files_are_kept_listed_and_expire(&fresh().await).await;
    a_file_comes_and_goes_in_pieces(&fresh().await).await;
    an_upload_that_does_not_end_is_no_file(&fresh().await).await;
}

async fn append(store: &impl FileStore, upload: UploadId, bytes: impl Into<Bytes>) -> bool {
    store
        .append_upload(upload, bytes.into())
        .await
        .expect("tried")
}

/// Uploads a file in these pieces.
async fn keep(store: &impl FileStore, scope: &Scope, file: StoredFile, pieces: &[Bytes]) {
    let upload = store.begin_upload(at(1)).await.expect("begun");
    for piece in pieces {
        assert!(append(store, upload, piece.clone()).await);
    }
    assert!(store.end_upload(scope, upload, file).await.expect("ended"));
}

fn named(id: &str, bytes: u64, expires: Option<i64>) -> StoredFile {
    StoredFile {
        id: id.into(),
        filename: format!("{id}.txt"),
        purpose: "user_data".to_owned(),
        bytes,
        created: at(1),
        expires: expires.map(at),
    }
}

async fn a_file_comes_and_goes_in_pieces(store: &(impl ResponseStore + FileStore)) {
    let (mine, theirs) = (scope("mine"), scope("theirs"));
    let (mut first, mut second) = (vec![1; 100_000], vec![2; 70_000]);
    let one = store.begin_upload(at(1)).await.expect("begun");
    let other = store.begin_upload(at(1)).await.expect("begun");
    // Two at once keep their own bytes in their own order.
    assert!(append(store, one, first.clone()).await);
    assert!(append(store, other, vec![9; 10]).await);
    assert!(append(store, one, second.clone()).await);
    let file = named("one", 170_000, Some(10));
    assert!(store.end_upload(&mine, one, file).await.expect("ended"));
    let file = named("other", 10, None);
    assert!(store.end_upload(&mine, other, file).await.expect("ended"));
    keep(store, &mine, named("empty", 0, None), &[]).await;

    let piece = |scope: &Scope, id: &str, number, now| {
        let piece = store.file_piece(scope, id, number, at(now));
        async move { piece.await.expect("read").map(|piece| piece.to_vec()) }
    };
    assert_eq!(piece(&mine, "one", 0, 9).await, Some(first.clone()));
    assert_eq!(piece(&mine, "one", 1, 9).await, Some(second.clone()));
    assert_eq!(piece(&mine, "one", 2, 9).await, None);
    assert_eq!(piece(&mine, "one", 0, 10).await, None, "expired");
    assert_eq!(piece(&theirs, "one", 0, 9).await, None);
    assert_eq!(piece(&mine, "other", 0, 9).await, Some(vec![9; 10]));
    assert_eq!(piece(&mine, "empty", 0, 9).await, None);
    first.append(&mut second);
    let whole = store.file_content(&mine, "one", at(9)).await.expect("read");
    assert_eq!(whole.as_deref(), Some(&first[..]));
    let none = store.file_content(&mine, "empty", at(9)).await;
    assert_eq!(none.expect("read").as_deref(), Some(&[][..]));

    // What has ended takes no more bytes, ends once, and cannot be dropped any more.
    assert!(!append(store, other, vec![1]).await);
    let again = named("again", 10, None);
    assert!(!store.end_upload(&mine, other, again).await.expect("tried"));
    store.drop_upload(other).await.expect("tried");
    assert_eq!(piece(&mine, "other", 0, 9).await, Some(vec![9; 10]));

    // Whether a file is deleted or expires, its bytes go with it.
    assert!(store.delete_file(&mine, "other").await.expect("deleted"));
    assert_eq!(piece(&mine, "other", 0, 9).await, None);
    assert_eq!(
        store.forget(at(0), at(0), at(10), 9).await.expect("done"),
        1
    );
    assert_eq!(piece(&mine, "one", 0, 9).await, None);
}

async fn an_upload_that_does_not_end_is_no_file(store: &(impl ResponseStore + FileStore)) {
    let mine = scope("mine");
    let dropped = store.begin_upload(at(1)).await.expect("begun");
    assert!(append(store, dropped, vec![1; 1000]).await);
    let listed = store.files(&mine, None, page(None, 9, true), at(2)).await;
    assert!(listed.expect("read").data.is_empty());
    store.drop_upload(dropped).await.expect("dropped");
    assert!(!append(store, dropped, vec![1]).await);
    let file = named("a", 1000, None);
    assert!(!store.end_upload(&mine, dropped, file).await.expect("tried"));

    // One that nobody dropped goes with what is old, a day after it began.
    let left = store.begin_upload(at(1)).await.expect("begun");
    let day = 86_400;
    let forget = |now| store.forget(at(0), at(0), at(now), 9);
    assert_eq!(forget(day).await.expect("done"), 0);
    assert!(append(store, left, vec![1]).await);
    assert_eq!(forget(day + 1).await.expect("done"), 1);
    assert!(!append(store, left, vec![1]).await);
}

async fn files_are_kept_listed_and_expire(store: &(impl ResponseStore + FileStore)) {
    let (mine, theirs) = (scope("mine"), scope("theirs"));
    let file = |id: &str, expires: Option<i64>| StoredFile {
        id: id.into(),
        filename: format!("{id}.txt"),
        purpose: if id == "c" { "assistants" } else { "user_data" }.to_owned(),
        bytes: 3,
        created: at(1),
        expires: expires.map(at),
    };
    for (id, expires) in [("a", None), ("b", Some(10)), ("c", None)] {
        let content = Bytes::from_static(b"abc");
        keep(store, &mine, file(id, expires), &[content]).await;
    }
    let content = Bytes::from_static(b"xyz");
    keep(store, &theirs, file("t", None), &[content]).await;
    assert_eq!(
        store.file(&mine, "b", at(9)).await.expect("read"),
        Some(file("b", Some(10)))
    );
    assert_eq!(store.file(&mine, "b", at(10)).await.expect("read"), None);
    assert_eq!(
        store.file_content(&mine, "b", at(10)).await.expect("read"),
        None
    );
    assert_eq!(
        store
            .file_content(&mine, "a", at(2))
            .await
            .expect("read")
            .as_deref(),
        Some(&b"abc"[..])
    );
    assert_eq!(store.file(&theirs, "a", at(2)).await.expect("read"), None);
    assert_eq!(
        store.file_content(&theirs, "a", at(2)).await.expect("read"),
        None
    );
    assert!(!store.delete_file(&theirs, "a").await.expect("tried"));
    for (purpose, after, limit, ascending, expected, more) in [
        (None, None, 2, false, &["c", "b"][..], true),
        (None, Some("b"), 2, false, &["a"], false),
        (None, None, 9, true, &["a", "b", "c"], false),
        (Some("user_data"), Some("a"), 9, true, &["b"], false),
    ] {
        let purpose = purpose.map(str::to_owned);
        let page = page(after, limit, ascending);
        let paged = store
            .files(&mine, purpose, page, at(2))
            .await
            .expect("read");
        let found: Vec<_> = paged.data.iter().map(|file| &*file.id).collect();
        assert_eq!(found, expected);
        assert_eq!(paged.has_more, more);
    }
    assert_eq!(
        store.forget(at(0), at(0), at(10), 9).await.expect("done"),
        1
    );
    assert!(store.delete_file(&mine, "a").await.expect("deleted"));
    assert_eq!(
        store.file_content(&mine, "a", at(2)).await.expect("read"),
        None
    );
}
