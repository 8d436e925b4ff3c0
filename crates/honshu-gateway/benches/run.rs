//! What the data plane itself costs for each run and for each event, without HTTP and without a database.

#![allow(
    clippy::disallowed_methods,
    reason = "a bench measures real time, and its tasks end with it"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench that fails is a panic"
)]

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use honshu_domain::{Error, PublicId, Region, SystemEntropy, Timeouts, UsageLog, UsageRow};
use honshu_gateway::{Call, Gateway, GatewayParts, Limits, Step};
use honshu_policy::{Authorizer as _, Permission, Target};
use honshu_testkit::{
    Act, AllowAll, FakeBackend, MemoryCatalogue, compartment, model, principal, request,
};
use tokio_util::sync::CancellationToken;

struct Forgets;

impl UsageLog for Forgets {
    fn record(
        &self,
        _row: UsageRow,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn gateway(pieces: u64) -> Gateway {
    let backend = Arc::new(FakeBackend::new("fake", [Act::good(pieces)]));
    Gateway::new(GatewayParts {
        catalogue: Arc::new(MemoryCatalogue::of([model("test.model", backend)])),
        authorizer: Arc::new(AllowAll::new()),
        usage: Arc::new(Forgets),
        clock: Arc::new(honshu_domain::SystemClock),
        entropy: Arc::new(honshu_domain::SystemEntropy),
        limits: Limits::default(),
        shutdown: CancellationToken::new(),
    })
}

fn runs(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let call = Call {
        principal: principal("key"),
        region: Region::local(),
        compartment: compartment(),
        request_id: "0123456789ABCDEF0123456789ABCDEF".into(),
        operation: "responses",
        timeouts: Timeouts {
            run_deadline: Duration::from_secs(60),
            ..Timeouts::default()
        },
    };
    let allow = AllowAll::new();
    criterion.bench_function("of which the policy decision", |bencher| {
        let target = Target::new(call.compartment.as_str()).model("test.model");
        bencher.iter(|| {
            allow
                .authorize(&call.principal, Permission::GENERATIVE_AI_CHAT, &target)
                .unwrap()
        });
    });
    criterion.bench_function("of which the run's id", |bencher| {
        bencher.iter(|| PublicId::generate("run_", &SystemEntropy));
    });
    criterion.bench_function("of which a task and a channel", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let (sender, mut receiver) = tokio::sync::mpsc::channel(32);
                tokio::spawn(async move { sender.send(1).await });
                receiver.recv().await
            })
        });
    });
    let request = Arc::new(request("test.model", "hello"));
    for pieces in [1, 1_000] {
        let gateway = gateway(pieces);
        criterion.bench_function(&format!("run of {pieces} events"), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let mut run = gateway
                        .generate(call.clone(), Arc::clone(&request))
                        .await
                        .unwrap();
                    while let Some(step) = run.next().await {
                        if let Step::End {
                            error: Some(error), ..
                        } = step
                        {
                            panic!("{error}");
                        }
                    }
                });
            });
        });
    }
}

criterion_group!(benches, runs);
criterion_main!(benches);
