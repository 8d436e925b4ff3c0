//! The kernels of `native/` against arithmetic in double precision, and against llama.cpp's own.
//!
//! They are called as a model calls them, through graphs of llama.cpp, so the test also shows that they are built in.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the graphs are llama.cpp's C interface; sizes of a test are small"
)]

use llama_cpp_sys_2 as ffi;

/// A context of tensors that is freed with it.
struct Tensors(*mut ffi::ggml_context);

impl Tensors {
    fn new() -> Self {
        let params = ffi::ggml_init_params {
            mem_size: 256 << 20,
            mem_buffer: std::ptr::null_mut(),
            no_alloc: false,
        };
        // SAFETY: the parameters ask the library to allocate; initialising the tables twice does nothing.
        let context = unsafe {
            ffi::ggml_cpu_init();
            ffi::ggml_init(params)
        };
        assert!(!context.is_null());
        Self(context)
    }

    fn tensor(&self, kind: ffi::ggml_type, shape: [usize; 4]) -> *mut ffi::ggml_tensor {
        let [a, b, c, d] = shape.map(|n| n as i64);
        // SAFETY: the context is live and has room for the small tensors of these tests, else the library aborts.
        unsafe { ffi::ggml_new_tensor_4d(self.0, kind, a, b, c, d) }
    }

    fn floats(&self, shape: [usize; 4], values: &[f32]) -> *mut ffi::ggml_tensor {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        let tensor = self.tensor(ffi::GGML_TYPE_F32, shape);
        // SAFETY: the tensor has this many floats, contiguous.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), (*tensor).data.cast(), values.len());
        }
        tensor
    }

    /// Stores values as halves, and puts what was stored back into `values`.
    fn halves(&self, shape: [usize; 4], values: &mut [f32]) -> *mut ffi::ggml_tensor {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        let tensor = self.tensor(ffi::GGML_TYPE_F16, shape);
        for (at, value) in values.iter_mut().enumerate() {
            // SAFETY: the tensor has this many halves, contiguous.
            unsafe {
                let half = ffi::ggml_fp32_to_fp16(*value);
                (*tensor).data.cast::<u16>().add(at).write(half);
                *value = ffi::ggml_fp16_to_fp32(half);
            }
        }
        tensor
    }

    /// A product with these weights, which are packed as the tensor's type says.
    fn product(
        &self,
        packed: *mut ffi::ggml_tensor,
        weights: &[f32],
        right: *mut ffi::ggml_tensor,
    ) -> *mut ffi::ggml_tensor {
        // SAFETY: the tensors belong to the live context, and the packed one has room for its weights, which are as
        // many as are given, in rows of whole blocks.
        unsafe {
            let [steps, rows, ..] = (*packed).ne;
            assert_eq!(weights.len() as i64, steps * rows);
            ffi::ggml_quantize_chunk(
                (*packed).type_,
                weights.as_ptr(),
                (*packed).data,
                0,
                rows,
                steps,
                std::ptr::null(),
            );
            ffi::ggml_mul_mat(self.0, packed, right)
        }
    }

    /// Computes a tensor. `plain` asks for llama.cpp's reference kernels.
    fn compute(&self, result: *mut ffi::ggml_tensor, threads: i32, plain: bool) -> Vec<f32> {
        // SAFETY: the tensors belong to the live context, the work buffer has the planned size and outlives the call,
        // and the result is a contiguous tensor of floats.
        unsafe {
            let graph = ffi::ggml_new_graph(self.0);
            ffi::ggml_build_forward_expand(graph, result);
            let mut plan = ffi::ggml_graph_plan(graph, threads, std::ptr::null_mut());
            let mut work = vec![0_u128; plan.work_size / 16 + 8];
            plan.work_data = work.as_mut_ptr().cast();
            plan.use_ref = plain;
            assert_eq!(
                ffi::ggml_graph_compute(graph, &raw mut plan),
                ffi::GGML_STATUS_SUCCESS
            );
            let count = ffi::ggml_nelements(result) as usize;
            std::slice::from_raw_parts((*result).data.cast::<f32>(), count).to_vec()
        }
    }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        // SAFETY: the context is live, and no tensor of it is used any more.
        unsafe { ffi::ggml_free(self.0) };
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }

    /// Between minus and plus `scale`.
    fn value(&mut self, scale: f32) -> f32 {
        ((self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0) * scale
    }

    fn values(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.value(scale)).collect()
    }
}

/// What the rows of a batch see of the cells.
#[derive(Debug, Clone, Copy)]
enum Sight {
    /// A prompt: each row one cell more than the one before.
    Causal,
    /// Answers whose cells lie anywhere.
    Own,
    /// Answers with the same beginning.
    Shared,
    /// As `Own`, but one row sees nothing.
    Nothing,
    /// Everything, with masks that are neither nothing nor everything.
    Weighted,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    key: usize,
    value: usize,
    heads: usize,
    kv_heads: usize,
    rows: usize,
    cells: usize,
    streams: usize,
    sight: Sight,
    sinks: bool,
    threads: i32,
}

fn mask(case: &Case, random: &mut Random) -> Vec<f32> {
    let mut mask = Vec::with_capacity(case.streams * case.rows * case.cells);
    for _ in 0..case.streams {
        let owners: Vec<usize> = (0..case.cells)
            .map(|_| random.below(case.rows + 2))
            .collect();
        for row in 0..case.rows {
            for (cell, owner) in owners.iter().enumerate() {
                let sees = match case.sight {
                    Sight::Causal => cell + case.rows <= case.cells + row,
                    Sight::Own => *owner == row,
                    Sight::Shared => cell < case.cells / 2 || *owner == row,
                    Sight::Nothing => row != case.rows / 2 && *owner == row,
                    Sight::Weighted => true,
                };
                let weighted = matches!(case.sight, Sight::Weighted) && random.below(3) == 0;
                mask.push(match (sees, weighted) {
                    (false, _) => f32::NEG_INFINITY,
                    (true, false) => 0.0,
                    (true, true) => random.value(1.0),
                });
            }
        }
    }
    mask
}

/// The largest difference from attention in double precision, and the largest value.
fn attention_error(case: &Case, random: &mut Random) -> (f64, f64) {
    let Case {
        key,
        value,
        heads,
        kv_heads,
        rows,
        cells,
        streams,
        ..
    } = *case;
    let tensors = Tensors::new();
    let q = random.values(key * rows * heads * streams, 3.0);
    let mut k = random.values(key * kv_heads * cells * streams, 2.0);
    let mut v = random.values(value * kv_heads * cells * streams, 1.0);
    let mut seen = mask(case, random);
    let sinks = random.values(heads, 1.0);
    let queries = tensors.floats([key, rows, heads, streams], &q);
    let keys = tensors.halves([key, kv_heads, cells, streams], &mut k);
    let values = tensors.halves([value, kv_heads, cells, streams], &mut v);
    let masks = tensors.halves([cells, rows, 1, streams], &mut seen);
    let scale = 1.0 / (key as f32).sqrt();
    // SAFETY: the tensors belong to the live context and have the shapes that attention asks for.
    let result = unsafe {
        let keys = ffi::ggml_permute(tensors.0, keys, 0, 2, 1, 3);
        let values = ffi::ggml_permute(tensors.0, values, 0, 2, 1, 3);
        let result =
            ffi::ggml_flash_attn_ext(tensors.0, queries, keys, values, masks, scale, 0.0, 0.0);
        if case.sinks {
            ffi::ggml_flash_attn_ext_add_sinks(result, tensors.floats([heads, 1, 1, 1], &sinks));
        }
        result
    };
    let found = tensors.compute(result, case.threads, false);

    let (mut worst, mut largest) = (0.0_f64, 0.0_f64);
    for stream in 0..streams {
        for row in 0..rows {
            let sees = &seen[(stream * rows + row) * cells..][..cells];
            for head in 0..heads {
                let query = &q[((stream * heads + head) * rows + row) * key..][..key];
                let kv_head = head / (heads / kv_heads);
                let place = |cell: usize| (stream * cells + cell) * kv_heads + kv_head;
                let scores: Vec<f64> = (0..cells)
                    .map(|cell| {
                        let dot = query.iter().zip(&k[place(cell) * key..]);
                        let dot: f64 = dot.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        dot * f64::from(scale) + f64::from(sees[cell])
                    })
                    .collect();
                let sink = if case.sinks {
                    f64::from(sinks[head])
                } else {
                    f64::NEG_INFINITY
                };
                let most = scores.iter().copied().fold(sink, f64::max);
                let weigh = |score: f64| {
                    if score == f64::NEG_INFINITY {
                        0.0
                    } else {
                        (score - most).exp()
                    }
                };
                let total: f64 = weigh(sink) + scores.iter().map(|s| weigh(*s)).sum::<f64>();
                let mut sum = vec![0.0_f64; value];
                for (cell, score) in scores.iter().enumerate() {
                    let weight = weigh(*score);
                    if weight > 0.0 {
                        let of_cell = v[place(cell) * value..].iter();
                        sum.iter_mut()
                            .zip(of_cell)
                            .for_each(|(sum, v)| *sum += weight * f64::from(*v));
                    }
                }
                let out = &found[((stream * rows + row) * heads + head) * value..][..value];
                for (sum, out) in sum.iter().zip(out) {
                    let exact = if total == 0.0 { 0.0 } else { sum / total };
                    let error = (exact - f64::from(*out)).abs();
                    worst = worst.max(if error.is_nan() { f64::INFINITY } else { error });
                    largest = largest.max(exact.abs());
                }
            }
        }
    }
    (worst, largest)
}

/// Whether the kernels take part, or the code is built without them.
fn kernels() -> bool {
    cfg!(target_arch = "x86_64") && std::env::var("HONSHU_KERNELS").as_deref() != Ok("off")
}

#[test]
fn attention_is_exact_for_every_shape_and_sight() {
    let mut random = Random(7);
    let sights = [
        Sight::Causal,
        Sight::Own,
        Sight::Shared,
        Sight::Nothing,
        Sight::Weighted,
    ];
    // Shapes of small and large models: grouped heads, one key-value head for all, keys unlike values.
    let shapes = [
        (64, 64, 9, 3),
        (64, 64, 8, 8),
        (128, 128, 8, 2),
        (80, 80, 5, 1),
        (256, 256, 4, 2),
        (192, 128, 4, 1),
        (64, 64, 24, 1),
    ];
    for (key, value, heads, kv_heads) in shapes {
        for rows in [1, 3, 17, 35, 70] {
            let sight = sights[random.below(sights.len())];
            for sight in [sight, Sight::Own] {
                let case = Case {
                    key,
                    value,
                    heads,
                    kv_heads,
                    rows,
                    // Cells beyond a whole block, and fewer than one.
                    cells: rows + 6 + random.below(200),
                    streams: 1 + random.below(2),
                    sight,
                    sinks: random.below(2) == 0,
                    threads: 1 + random.below(3) as i32,
                };
                let (worst, largest) = attention_error(&case, &mut random);
                // llama.cpp's own kernel sums in half precision.
                let allowed = if kernels() { 2e-5 } else { 2e-2 };
                assert!(
                    worst <= allowed * largest.max(0.05),
                    "{case:?}: off by {worst:e} of {largest}"
                );
            }
        }
    }
}

/// The formats of weights that have a kernel.
const FORMATS: [ffi::ggml_type; 2] = [ffi::GGML_TYPE_Q4_1, ffi::GGML_TYPE_Q8_0];

#[test]
fn a_product_is_that_of_the_reference() {
    let mut random = Random(11);
    for format in FORMATS {
        for rows in [16, 48, 576] {
            for columns in [1, 2, 3, 7, 8, 9, 17, 64] {
                for steps in [32, 576, 1056] {
                    product_like_the_reference(&mut random, format, [rows, columns, steps]);
                }
            }
        }
    }
}

fn product_like_the_reference(
    random: &mut Random,
    format: ffi::ggml_type,
    [rows, columns, steps]: [usize; 3],
) {
    let tensors = Tensors::new();
    let weights = random.values(steps * rows, 1.0);
    let packed = tensors.tensor(format, [steps, rows, 1, 1]);
    let right = tensors.floats([steps, columns, 1, 1], &random.values(steps * columns, 1.0));
    let product = tensors.product(packed, &weights, right);
    let expected = tensors.compute(product, 1, true);
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    for threads in [1, 2, 3] {
        let found = tensors.compute(product, threads, false);
        for (a, b) in expected.iter().zip(&found) {
            assert!(
                (a - b).abs() <= 1e-4 * largest,
                "format {format}, {rows} x {columns} x {steps}, {threads} threads: {b}, not {a}"
            );
        }
    }
}

#[test]
fn extreme_bytes_of_a_product_do_not_overflow() {
    // Every weight and every activation at the end of its range, with either sign.
    for format in FORMATS {
        for (weight, value) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
            let tensors = Tensors::new();
            let (rows, steps) = (16, 1056);
            let packed = tensors.tensor(format, [steps, rows, 1, 1]);
            let right = tensors.floats([steps, 2, 1, 1], &vec![value; steps * 2]);
            let product = tensors.product(packed, &vec![weight; steps * rows], right);
            for sum in tensors.compute(product, 1, false) {
                let expected = weight * value * steps as f32;
                assert!(
                    (sum - expected).abs() < 1.0,
                    "format {format}: {sum}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn a_column_of_a_product_does_not_depend_on_the_others() {
    let mut random = Random(13);
    let (rows, steps) = (48, 1056);
    for format in FORMATS {
        let weights = random.values(steps * rows, 1.0);
        let right = random.values(steps * 9, 1.0);
        let product = |columns: usize| {
            let tensors = Tensors::new();
            let packed = tensors.tensor(format, [steps, rows, 1, 1]);
            let right = tensors.floats([steps, columns, 1, 1], &right[..steps * columns]);
            tensors.compute(tensors.product(packed, &weights, right), 2, false)
        };
        let all = product(9);
        for columns in 1..9 {
            assert_eq!(
                product(columns),
                all[..columns * rows],
                "{format}, {columns}"
            );
        }
    }
}

#[test]
fn a_mask_that_changes_between_two_graphs_is_read_again() {
    let mut random = Random(17);
    let (rows, cells, size) = (8, 256, 64);
    let tensors = Tensors::new();
    let query = tensors.floats([size, rows, 3, 1], &random.values(size * rows * 3, 1.0));
    let key = tensors.halves([size, cells, 1, 1], &mut random.values(size * cells, 1.0));
    let value = tensors.halves([size, cells, 1, 1], &mut random.values(size * cells, 1.0));
    let mask = tensors.halves([cells, rows, 1, 1], &mut vec![0.0; cells * rows]);
    // SAFETY: the tensors belong to the live context and have the shapes that attention asks for.
    let result =
        unsafe { ffi::ggml_flash_attn_ext(tensors.0, query, key, value, mask, 0.125, 0.0, 0.0) };
    let all = tensors.compute(result, 2, false);
    // SAFETY: the mask has this many halves, contiguous; 0xfc00 is minus infinity.
    unsafe {
        let halves = (*mask).data.cast::<u16>();
        for at in (0..cells * rows).filter(|at| at % cells >= 64) {
            halves.add(at).write(0xfc00);
        }
    }
    let few = tensors.compute(result, 2, false);
    let expected = tensors.compute(result, 1, true);
    assert_ne!(all, few);
    for (a, b) in expected.iter().zip(&few) {
        assert!((a - b).abs() < 2e-2, "{b}, not {a}");
    }
}
