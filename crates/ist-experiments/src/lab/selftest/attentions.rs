//! Attention in every form that models ask for, in shapes that fill several tiles of a kernel and
//! leave rests.

use ist_models::ops::attention::{AttentionMask, Scores, attention};

use super::Check;
use super::numbers::random;
use super::operations::check;

/// One attention: sizes, what its queries see and how much that weighs.
#[derive(Clone)]
struct Case {
    name: &'static str,
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Whether a key of a row is no padding.
    real: fn(usize, usize) -> bool,
    window: Option<usize>,
    soft_cap: Option<f64>,
    linear_biases: bool,
    /// Whether tensors lie in memory head by head.
    by_heads: bool,
}

/// The queries are two blocks of 64 or three of 32, none of them full, and the keys three more.
const PLAIN: Case = Case {
    name: "attention",
    batch: 3,
    queries: 70,
    keys: 73,
    heads: 4,
    kv_heads: 2,
    head_dim: 6,
    real: |_, _| true,
    window: None,
    soft_cap: None,
    linear_biases: false,
    by_heads: false,
};

/// Padding in front: of the rows none, 9 and 30 keys.
fn in_front(row: usize, key: usize) -> bool {
    key >= [0, 9, 30][row]
}

/// Padding at the end, in the middle for longer than a window of 20, and everywhere.
fn scattered(row: usize, key: usize) -> bool {
    [key < 60, !(25..60).contains(&key), false][row]
}

/// The checks.
pub(super) fn checks() -> Vec<Check> {
    [forms(), widths(), generation()].into_iter().flatten().map(Case::check).collect()
}

fn forms() -> Vec<Case> {
    let padded = Case { real: in_front, ..PLAIN };
    vec![
        PLAIN,
        Case { name: "attention, padded", ..padded },
        Case { name: "attention, padding anywhere", real: scattered, head_dim: 8, ..PLAIN },
        Case {
            name: "attention, padding longer than the window",
            real: scattered,
            window: Some(20),
            ..PLAIN
        },
        Case {
            name: "attention, bounded scores in a window",
            window: Some(20),
            soft_cap: Some(1.5),
            ..padded
        },
        // Padding between keys, or the positions would all be off by the same number, which no
        // weight shows.
        Case { name: "attention, linear biases", linear_biases: true, real: scattered, ..PLAIN },
        Case {
            name: "attention, linear biases without padding",
            linear_biases: true,
            heads: 3,
            kv_heads: 3,
            ..PLAIN
        },
        Case {
            name: "attention, everything at once",
            queries: 101,
            keys: 140,
            heads: 6,
            head_dim: 36,
            window: Some(45),
            soft_cap: Some(1.5),
            linear_biases: true,
            by_heads: true,
            ..padded
        },
    ]
}

fn widths() -> Vec<Case> {
    let few = Case { batch: 1, queries: 37, keys: 41, ..PLAIN };
    vec![
        Case {
            name: "attention, heads of 64",
            head_dim: 64,
            window: Some(33),
            queries: 130,
            keys: 130,
            ..few
        },
        Case {
            name: "attention, heads of 64 in groups of three",
            head_dim: 64,
            heads: 6,
            by_heads: true,
            ..few
        },
        Case { name: "attention, heads of 80", head_dim: 80, soft_cap: Some(1.5), ..few },
        Case { name: "attention, heads of 128", head_dim: 128, ..few },
        Case { name: "attention, heads of 70", head_dim: 70, ..few },
        Case { name: "attention, heads of 256", head_dim: 256, heads: 2, kv_heads: 1, ..few },
        Case { name: "attention, heads of 260", head_dim: 260, heads: 2, kv_heads: 1, ..few },
    ]
}

fn generation() -> Vec<Case> {
    let one = Case { queries: 1, keys: 101, head_dim: 64, ..PLAIN };
    vec![
        Case { name: "attention, one token", ..one },
        Case {
            name: "attention, one token, padded, in a window",
            real: in_front,
            window: Some(40),
            ..one
        },
        Case {
            name: "attention, three tokens in groups of four",
            queries: 3,
            heads: 8,
            linear_biases: true,
            ..one
        },
        // A dimension of a launch holds 65,535 cubes.
        Case {
            name: "attention, many heads",
            batch: 2,
            queries: 1,
            keys: 2,
            heads: 33_000,
            kv_heads: 33_000,
            head_dim: 2,
            ..PLAIN
        },
    ]
}

impl Case {
    fn mask(&self) -> AttentionMask {
        let rows = (0..self.batch).flat_map(|row| (0..self.keys).map(move |key| (row, key)));
        let real: Vec<bool> = rows.map(|(row, key)| (self.real)(row, key)).collect();
        let mask = AttentionMask::causal(&real, self.queries, self.keys);
        self.window.map_or(mask.clone(), |window| mask.within(window))
    }

    fn scores(&self) -> Scores {
        let scores = Scores { soft_cap: self.soft_cap, ..Scores::scaled(self.head_dim) };
        if self.linear_biases { scores.with_linear_biases(self.heads) } else { scores }
    }

    fn check(self) -> Check {
        let (mask, scores) = (self.mask(), self.scores());
        let shape = |positions: usize, heads: usize| {
            if self.by_heads {
                [self.batch, heads, positions, self.head_dim]
            } else {
                [self.batch, positions, heads, self.head_dim]
            }
        };
        let keys = shape(self.keys, self.kv_heads);
        let shapes = [shape(self.queries, self.heads), keys, keys];
        let inputs =
            [0, 1, 2].map(|at| random(&format!("qkv {at}"), shapes[at].iter().product(), 1.5));
        check(self.name, inputs.into(), move |inputs| {
            let [q, k, v] = [0, 1, 2].map(|at| {
                let x = inputs[at].clone().reshape(shapes[at]);
                if self.by_heads { x.swap_dims(1, 2) } else { x }
            });
            attention(q, k, v, &mask, &scores).flatten(0, 3)
        })
    }
}
