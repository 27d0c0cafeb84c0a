//! What the targets share.

/// What a device may advertise.
pub mod lowered_features {
    use cubecl_core::ir::DeviceProperties;

    /// What the features are narrowed for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum GpuTarget {
        /// NVIDIA's PTX.
        Nvptx,
    }

    /// Narrows nothing: `cubecl-cuda` asks only where LLVM compiles.
    pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
}
