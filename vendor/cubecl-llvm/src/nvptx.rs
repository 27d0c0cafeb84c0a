//! NVIDIA's PTX.

/// Versions of PTX.
pub mod ptx_version {
    use std::fmt;

    /// A version of PTX; never known here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PtxVersion(());

    impl PtxVersion {
        /// The newest version that a driver loads: unknown, for nothing is compiled to it.
        pub fn for_driver(_driver: i32) -> Option<Self> {
            None
        }
    }

    impl fmt::Display for PtxVersion {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("ptx")
        }
    }
}
