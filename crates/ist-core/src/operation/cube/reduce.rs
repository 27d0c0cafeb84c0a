//! Reductions over the units of a cube, in shared memory.

#![expect(missing_docs, reason = "the macro adds a module beside each function")]

use cubecl::prelude::*;

/// The sum of all units' numbers, in every unit; `scratch` has a place for each of the `units`, a
/// power of two.
#[cube]
pub fn sum(value: f32, scratch: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    // Whoever still reads the last result is done.
    sync_cube();
    scratch[unit] = value;
    sync_cube();
    // A tree: each round halves the numbers that are left.
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            scratch[unit] += scratch[unit + half];
        }
        // Every unit, busy or not, has to come here, or the others wait for ever.
        sync_cube();
        half /= 2;
    }
    scratch[0]
}

/// The largest of all units' numbers, in every unit, as [`sum`].
#[cube]
pub fn most(value: f32, scratch: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    scratch[unit] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            scratch[unit] = max(scratch[unit], scratch[unit + half]);
        }
        // Every unit, busy or not, has to come here, or the others wait for ever.
        sync_cube();
        half /= 2;
    }
    scratch[0]
}
