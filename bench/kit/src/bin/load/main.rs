//! Load on an OpenAI-compatible base URL of this machine, with the CPU time and memory of the server.
//!
//! Prints a JSON object a run. CPU time is the figure to compare: it hardly moves with a busy neighbour, while
//! requests a second and latencies do, as this program, the upstream and the server share the processors.

mod process;
mod worker;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use process::Processes;
use worker::{Seen, Target, Window};

#[derive(Clone, Copy, ValueEnum)]
enum Api {
    Chat,
    Responses,
}

/// Load on a gateway.
#[derive(Parser)]
struct Args {
    /// The name in the output.
    #[arg(long)]
    name: String,
    /// Base URL, such as http://127.0.0.1:8080/v1. Only this machine.
    #[arg(long)]
    url: String,
    /// Processes of the server; their descendants count as well.
    #[arg(long, value_delimiter = ',', required = true)]
    pids: Vec<u32>,
    /// The API key.
    #[arg(long, env = "BENCH_KEY", hide_env_values = true)]
    key: Option<String>,
    #[arg(long, value_enum, default_value = "chat")]
    api: Api,
    #[arg(long, default_value = "mock")]
    model: String,
    /// Asks for streams.
    #[arg(long)]
    stream: bool,
    /// Callers at once.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Bytes that are added to the prompt.
    #[arg(long, default_value_t = 0)]
    pad: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 2.0)]
    warm_seconds: f64,
}

fn target(args: &Args) -> anyhow::Result<Target> {
    let rest = args
        .url
        .strip_prefix("http://")
        .context("the URL begins with http://")?;
    let (host, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address: SocketAddr = host
        .parse()
        .context("the URL names an address and a port")?;
    anyhow::ensure!(address.ip().is_loopback(), "only servers on this machine");
    let padding = "Tell me how a gateway works. ";
    let user =
        padding.repeat(args.pad / padding.len()) + "Write three short sentences about a gateway.";
    let mut body = match args.api {
        Api::Chat => serde_json::json!({
            "model": args.model,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": user},
            ],
            "max_tokens": 400,
            "temperature": 0.7,
        }),
        Api::Responses => serde_json::json!({
            "model": args.model,
            "instructions": "You are a helpful assistant.",
            "input": user,
            "max_output_tokens": 400,
            "store": false,
        }),
    };
    let path = match args.api {
        Api::Chat => "/chat/completions",
        Api::Responses => "/responses",
    };
    if args.stream {
        body["stream"] = true.into();
        if matches!(args.api, Api::Chat) {
            body["stream_options"] = serde_json::json!({"include_usage": true});
        }
    }
    Ok(Target {
        address,
        path: format!("{}{path}", base.trim_end_matches('/')),
        body: serde_json::to_vec(&body)?.into(),
        key: args.key.clone(),
        stream: args.stream,
    })
}

struct Cost {
    cpu_seconds: f64,
    wall_seconds: f64,
    resident_mib: f64,
}

async fn run(args: &Args, server: &Processes, seen: &Rc<RefCell<Seen>>) -> anyhow::Result<Cost> {
    let target = Rc::new(target(args)?);
    let from = Instant::now() + Duration::from_secs_f64(args.warm_seconds);
    let window = Window {
        from,
        until: from + Duration::from_secs_f64(args.seconds),
    };
    let callers: Vec<_> = (0..args.callers)
        .map(|_| {
            tokio::task::spawn_local(worker::call(Rc::clone(&target), window, Rc::clone(seen)))
        })
        .collect();
    tokio::time::sleep_until(window.from.into()).await;
    let (begun, before) = (Instant::now(), server.cpu_seconds());
    tokio::time::sleep_until(window.until.into()).await;
    let cost = Cost {
        cpu_seconds: server.cpu_seconds() - before,
        wall_seconds: begun.elapsed().as_secs_f64(),
        resident_mib: server.resident_mib(),
    };
    for caller in callers {
        caller.await?;
    }
    Ok(cost)
}

/// A percentile in milliseconds, absent when there is nothing to order.
fn percentile_ms(values: &mut [u64], part: f64) -> Option<f64> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    Some(values[(last as f64 * part).round() as usize] as f64 / 1e6)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let server = Processes::new(args.pids.clone());
    server.reset_peak();
    let seen = Rc::new(RefCell::new(Seen::default()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let cost = tokio::task::LocalSet::new().block_on(&runtime, run(&args, &server, &seen))?;
    let mut seen = seen.take();
    let (answers, pieces) = (seen.answered_ns.len() as f64, seen.transit_ns.len() as f64);
    let per = |count: f64, unit: f64| (count > 0.0).then(|| cost.cpu_seconds * unit / count);
    let report = serde_json::json!({
        "name": args.name,
        "callers": args.callers,
        "answers": answers,
        "answers_per_second": answers / cost.wall_seconds,
        "answer_p50_ms": percentile_ms(&mut seen.answered_ns, 0.5),
        "answer_p99_ms": percentile_ms(&mut seen.answered_ns, 0.99),
        "first_piece_p50_ms": percentile_ms(&mut seen.first_piece_ns, 0.5),
        "pieces": pieces,
        "pieces_per_second": pieces / cost.wall_seconds,
        "transit_p50_ms": percentile_ms(&mut seen.transit_ns, 0.5),
        "transit_p99_ms": percentile_ms(&mut seen.transit_ns, 0.99),
        "cpu_seconds": cost.cpu_seconds,
        "cpu_seconds_per_1000_answers": per(answers, 1e3),
        "cpu_us_per_piece": per(pieces, 1e6),
        "resident_mib": cost.resident_mib,
        "peak_mib": server.peak_mib(),
        "connections": seen.connections,
        "failures": seen.failures,
        "first_failure": seen.first_failure,
    });
    #[expect(
        clippy::print_stdout,
        reason = "the report is what this program is for"
    )]
    {
        println!("{report}");
    }
    Ok(())
}
