//! The four tiles that fit in shared memory, and how they come from tensors.
//!
//! A tile holds up to [`SIDE`] rows of a tensor and [`SIDE`] of their numbers, in fours: a chunk.
//! The units of a cube stand in rows of [`ACROSS`].
//!
//! ```text
//!          across 0 .. 7
//!         ┌───┬───┬   ┬───┐
//! down 0  │ u │ u │ . │ u │   Of a product, unit (across, down) holds the rows
//! down 1  │ u │ u │ . │ u │   down, down + units_down, ... and in each of them
//! ...     └───┴───┴   ┴───┘   the numbers or fours across, across + 8, ...
//! ```
//!
//! Within a row of a tile the fours change places, a different way in each of eight rows. So the
//! fours that the units of one plane read together lie in different banks of shared memory.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

/// Four numbers, which are read from shared memory at once.
pub(super) type Four = Vector<f32, Const<4>>;

/// Keys of a tile, and numbers of a head in a chunk.
pub(super) const SIDE: usize = 32;

/// Units of a cube side by side.
pub(super) const ACROSS: usize = SIDE / 4;

/// Fours of a tile.
const FOURS: usize = SIDE * ACROSS;

/// Fours of all tiles: 16 KiB, which is what WebGPU promises.
pub(super) const MEMORY: usize = 4 * FOURS;

/// What a kernel is compiled for.
#[expect(clippy::struct_excessive_bools, reason = "each leaves something out of a kernel")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TileShape {
    /// Numbers of a head.
    pub(super) head_dim: usize,
    /// Rows of a tile's product that a unit computes.
    pub(super) unit_rows: usize,
    /// Rows of units.
    pub(super) units_down: usize,
    /// Whether there are marks of the keys.
    pub(super) padding: bool,
    /// Whether a query sees the last keys alone.
    pub(super) window: bool,
    /// Whether scores have a cap.
    pub(super) cap: bool,
    /// Whether keys' positions add to scores.
    pub(super) slopes: bool,
}

impl TileShape {
    /// Units of a cube.
    pub(super) fn units(self) -> usize {
        self.units_down * ACROSS
    }

    /// Rows of a tile.
    pub(super) fn rows(self) -> usize {
        self.unit_rows * self.units_down
    }

    /// Chunks of a head.
    pub(super) fn chunks(self) -> usize {
        self.head_dim.div_ceil(SIDE)
    }
}

/// Where rows of a tensor `[batch, positions, heads, head_dim]` lie: those of `group` heads from
/// `head`, position by position, and of one position head by head.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Rows {
    pub(super) batch: usize,
    pub(super) head: usize,
    pub(super) group: usize,
    /// How many there are.
    pub(super) count: usize,
}

/// The unit's place in its row.
#[cube]
pub(super) fn across() -> usize {
    UNIT_POS as usize % ACROSS
}

/// The unit's row.
#[cube]
pub(super) fn down() -> usize {
    UNIT_POS as usize / ACROSS
}

/// Where row `row` begins.
#[cube]
fn start<N: Size>(x: &Tensor<Vector<f32, N>>, rows: Rows, row: usize) -> usize {
    let position = row / rows.group;
    let head = rows.head + row % rows.group;
    rows.batch * x.stride(0) + position * x.stride(1) + head * x.stride(2)
}

/// Where a four lies.
#[cube]
pub(super) fn slot(#[comptime] tile: usize, row: usize, column: usize) -> usize {
    tile * FOURS + row * ACROSS + (column ^ (row % ACROSS))
}

/// Fills a tile with `count` rows from row `from`; zeros lie beyond the last row and the head's
/// last number. Whoever reads the tile's last numbers must be done.
#[cube]
#[expect(clippy::too_many_arguments, reason = "from where to where")]
pub(super) fn load<N: Size>(
    memory: &mut Shared<[Four]>,
    #[comptime] tile: usize,
    x: &Tensor<Vector<f32, N>>,
    rows: Rows,
    from: usize,
    chunk: usize,
    #[comptime] count: usize,
    #[comptime] shape: TileShape,
) {
    let units = shape.units();
    let width = N::value();
    for pass in 0..comptime!(count * ACROSS / units) {
        let at = UNIT_POS as usize + pass * units;
        let row = at / ACROSS;
        let column = at % ACROSS;
        let number = (chunk * ACROSS + column) * 4;
        // What is not there is read elsewhere and left out, so that nothing branches.
        let start = start::<N>(x, rows, min(from + row, rows.count - 1));
        let mut four = Four::new(0.0);
        #[unroll]
        for part in 0..comptime!(4 / width) {
            let number = number + part * width;
            let there = from + row < rows.count && number < shape.head_dim;
            let numbers = x[(start + min(number, shape.head_dim - width)) / width];
            #[unroll]
            for lane in 0..width {
                four.insert(
                    comptime!(part * width + lane),
                    select(there, numbers.extract(lane), 0.0),
                );
            }
        }
        memory[slot(tile, row, column)] = four;
    }
}

/// Writes a unit's fours of every chunk, `[unit_rows, chunks]`.
#[cube]
pub(super) fn store<N: Size>(
    x: &mut Tensor<Vector<f32, N>>,
    rows: Rows,
    from: usize,
    fours: &Array<Four>,
    #[comptime] shape: TileShape,
) {
    let width = N::value();
    #[unroll]
    for i in 0..shape.unit_rows {
        let row = from + down() + i * shape.units_down;
        if row < rows.count {
            let start = start::<N>(&*x, rows, row);
            #[unroll]
            for chunk in 0..shape.chunks() {
                let four = fours[i * shape.chunks() + chunk];
                let number = (chunk * ACROSS + across()) * 4;
                #[unroll]
                for part in 0..comptime!(4 / width) {
                    if number + part * width < shape.head_dim {
                        let mut numbers = Vector::<f32, N>::new(0.0);
                        #[unroll]
                        for lane in 0..width {
                            numbers.insert(lane, four.extract(comptime!(part * width + lane)));
                        }
                        x[(start + number) / width + part] = numbers;
                    }
                }
            }
        }
    }
}
