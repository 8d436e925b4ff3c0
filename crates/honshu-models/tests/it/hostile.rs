//! GGUF from people who mean ill: a typed error, quickly, in little memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};

use honshu_models::gguf::{self, GgufError};

use crate::support::{Gguf, small, string};

/// Remembers the largest single allocation.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged.
#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait, and the test must see allocations"
)]
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// No single allocation of any test in this program may be larger: the largest string that the format allows here.
const ALLOCATION_MAX: usize = 9 * 1024 * 1024;

fn read(bytes: &[u8]) -> Result<gguf::ModelInfo, GgufError> {
    gguf::read(Cursor::new(bytes), bytes.len() as u64)
}

#[test]
fn a_valid_file_is_described() {
    let info = read(&small().bytes()).unwrap();
    assert_eq!(info.architecture, "llama");
    assert_eq!(info.name.as_deref(), Some("Tiny"));
    assert_eq!(info.license.as_deref(), Some("apache-2.0"));
    assert_eq!(info.languages, ["en", "ja"]);
    assert_eq!(info.quantization, "F32");
    assert_eq!(info.context_tokens_max, Some(128));
    assert_eq!(info.vocabulary_size, Some(3));
    assert_eq!(info.parameters, 64 * 3 + 64 * 64 + 64);
    assert!(info.has_chat_template);
    // 2 layers, 2 heads of 8 for keys and as many for values.
    assert_eq!(info.kv_elements_per_token, Some(2 * 2 * 16));
    assert_eq!(info.memory(100).kv_bytes, 2 * 2 * 16 * 2 * 100);
    assert_eq!(info.memory(100).weights_bytes, info.parameters * 4);
}

#[test]
fn the_real_small_model_is_described() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../.cache/models/smollm2-135m-instruct.gguf"
    );
    if !std::path::Path::new(path).exists() {
        eprintln!("skipped: {path} was not fetched");
        return;
    }
    let info = gguf::read_file(path.as_ref()).unwrap();
    assert_eq!(
        (info.architecture.as_str(), info.quantization.as_str()),
        ("llama", "Q4_1")
    );
    assert_eq!(
        (info.layers, info.vocabulary_size),
        (Some(30), Some(49_152))
    );
    assert_eq!(info.kv_elements_per_token, Some(30 * 3 * 128));
    assert_eq!(info.parameters, 134_515_008);
    assert!(info.has_chat_template);
}

/// Its name, the file, and whether an error is the right one.
type Lie = (&'static str, Vec<u8>, fn(&GgufError) -> bool);

#[test]
fn lies_are_refused_by_name() {
    let valid = small().bytes();
    let with = |at: usize, bytes: &[u8]| {
        let mut file = valid.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let huge = u64::MAX.to_le_bytes();
    let name_at = 24;
    let cases: Vec<Lie> = vec![
        ("empty", Vec::new(), |e| {
            matches!(e, GgufError::Truncated(_))
        }),
        ("zip", b"PK\x03\x04".repeat(10), |e| {
            matches!(e, GgufError::Magic)
        }),
        ("version 1", with(4, &1u32.to_le_bytes()), |e| {
            matches!(e, GgufError::Version(1))
        }),
        ("big endian", with(4, &3u32.to_be_bytes()), |e| {
            matches!(e, GgufError::Version(_))
        }),
        ("tensor count", with(8, &huge), |e| {
            matches!(e, GgufError::TooLarge { .. })
        }),
        ("metadata count", with(16, &huge), |e| {
            matches!(e, GgufError::TooLarge { .. })
        }),
        ("key length", with(name_at, &huge), |e| {
            matches!(e, GgufError::TooLarge { .. })
        }),
        ("cut", valid[..valid.len() - 1].to_vec(), |e| {
            matches!(e, GgufError::Truncated(_))
        }),
        (
            "no architecture",
            Gguf::default().tensor("a", &[1]).bytes(),
            |e| matches!(e, GgufError::Missing(_)),
        ),
        (
            "no tensors",
            Gguf::default().text("general.architecture", "x").bytes(),
            |e| matches!(e, GgufError::Malformed(_)),
        ),
        (
            "twice the key",
            small().number("general.file_type", 1).bytes(),
            |e| matches!(e, GgufError::Malformed(_)),
        ),
        (
            "twice the tensor",
            small().tensor("output_norm.weight", &[1]).bytes(),
            |e| matches!(e, GgufError::Malformed(_)),
        ),
        (
            "alignment 0",
            small().number("general.alignment", 0).bytes(),
            |e| matches!(e, GgufError::Malformed(_)),
        ),
        (
            "alignment 24",
            small().number("general.alignment", 24).bytes(),
            |e| matches!(e, GgufError::Malformed(_)),
        ),
        (
            "one part of three",
            small().number("split.count", 3).bytes(),
            |e| matches!(e, GgufError::Malformed(_)),
        ),
        (
            "long tensor name",
            small().tensor(&"x".repeat(64), &[1]).bytes(),
            |e| matches!(e, GgufError::TooLarge { .. }),
        ),
        (
            "five dimensions",
            small().tensor("x", &[1; 5]).bytes(),
            |e| matches!(e, GgufError::Malformed(_)),
        ),
        ("array of arrays", array(9, 1), |e| {
            matches!(e, GgufError::Malformed(_))
        }),
        ("array of 2^60", array(0, 1 << 60), |e| {
            matches!(e, GgufError::TooLarge { .. })
        }),
        ("array past the end", array(10, 4_000_000), |e| {
            matches!(e, GgufError::Truncated(_))
        }),
        ("strings past the end", array(8, 4_000_000), |e| {
            matches!(e, GgufError::TooLarge { .. } | GgufError::Truncated(_))
        }),
    ];
    for (name, file, is_expected) in cases {
        let error = read(&file).expect_err(name);
        assert!(is_expected(&error), "{name}: {error:?}");
    }
}

fn array(kind: u32, len: u64) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend_from_slice(&0u64.to_le_bytes());
    file.extend_from_slice(&1u64.to_le_bytes());
    file.extend(string("k"));
    file.extend_from_slice(&9u32.to_le_bytes());
    file.extend_from_slice(&kind.to_le_bytes());
    file.extend_from_slice(&len.to_le_bytes());
    file.extend_from_slice(&[7; 256]);
    file
}

/// The last tensor's info, so that its numbers can be replaced.
fn tensor_table(valid: &[u8]) -> usize {
    let name = b"output_norm.weight";
    valid.windows(name.len()).position(|w| w == name).unwrap() + name.len()
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let valid = small().bytes();
    let table = tensor_table(&valid);
    // After the name: dimensions (4), size (8), type (4), offset (8).
    for (name, at, bytes) in [
        ("size 0", 4, 0u64.to_le_bytes().to_vec()),
        ("size -1", 4, u64::MAX.to_le_bytes().to_vec()),
        ("size 2^62", 4, (1u64 << 62).to_le_bytes().to_vec()),
        (
            "one row more than the file",
            4,
            65_536u64.to_le_bytes().to_vec(),
        ),
        ("type 4, removed", 12, 4u32.to_le_bytes().to_vec()),
        ("type 2^31", 12, (1u32 << 31).to_le_bytes().to_vec()),
        ("half a block", 12, 12u32.to_le_bytes().to_vec()),
        ("offset in another tensor", 16, 32u64.to_le_bytes().to_vec()),
        ("offset not aligned", 16, 17_153u64.to_le_bytes().to_vec()),
        (
            "offset past the end",
            16,
            (1u64 << 40).to_le_bytes().to_vec(),
        ),
        (
            "offset near 2^64",
            16,
            (u64::MAX - 31).to_le_bytes().to_vec(),
        ),
    ] {
        let mut file = valid.clone();
        file[table + at..table + at + bytes.len()].copy_from_slice(&bytes);
        assert!(read(&file).is_err(), "{name}");
    }
}

#[test]
fn thousands_of_mutations_neither_panic_nor_eat_memory() {
    let valid = small().bytes();
    let header = valid.len() - 64 * 64 * 4;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let interesting = [
        0u64,
        1,
        0x7f,
        0xff,
        0x7fff_ffff,
        0xffff_ffff,
        1 << 31,
        1 << 32,
        1 << 62,
        1 << 63,
        u64::MAX,
        u64::MAX - 31,
    ];
    let mut refused = 0;
    for round in 0..6000 {
        let mut file = valid.clone();
        for _ in 0..=next(3) {
            let at = next(header - 8);
            match round % 4 {
                0 => file[at] ^= 1 << next(8),
                1 => file[at..at + 8]
                    .copy_from_slice(&interesting[next(interesting.len())].to_le_bytes()),
                2 => file[at..at + 4]
                    .copy_from_slice(&(interesting[next(interesting.len())] as u32).to_le_bytes()),
                _ => file.truncate(at.max(1)),
            }
            if round % 4 == 3 {
                break;
            }
        }
        refused += usize::from(read(&file).is_err());
    }
    assert!(refused > 3000, "{refused}");
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < ALLOCATION_MAX, "{largest}");
}
