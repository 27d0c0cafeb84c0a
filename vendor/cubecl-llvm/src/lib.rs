//! The public names of `cubecl-llvm` that `cubecl-cuda` mentions, with nothing behind them;
//! README.md says why.

pub mod nvptx;
pub mod shared;

use std::ffi::c_char;
use std::fmt;

use cubecl_core::Compiler;
use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::compiler::CompilationError;
use cubecl_runtime::kernel::BufferIOAttr;

use nvptx::ptx_version::PtxVersion;

/// What a compiler makes code for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// NVIDIA's PTX.
    #[default]
    Nvptx,
}

/// A compiler that compiles nothing.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// What it would make code for.
    pub target: LlvmTarget,
}

/// What a caller may ask of the compiler.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// No architecture.
    pub arch: Option<SmArch>,
    /// The architecture of the device.
    pub sm_arch: Option<SmArch>,
    /// The PTX version that the driver loads.
    pub ptx_version: Option<PtxVersion>,
    /// Whether launch parameters are grid constants.
    pub grid_constants: bool,
}

/// A compiled kernel; none is ever made.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// NUL-terminated PTX.
    pub ptx: Vec<c_char>,
    /// The kernel's symbol.
    pub entrypoint: String,
    /// The code before it was lowered.
    pub ir: String,
    /// Bytes of shared memory of a launch.
    pub shared_memory_size: usize,
    /// What the kernel does with each buffer.
    pub io: Vec<BufferIOAttr>,
}

/// What a compilation would give.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// Code for the processor.
    Jit,
    /// PTX.
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jit => Ok(()),
            Self::NvptxCode(module) => formatter.write_str(&module.ir),
        }
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(&mut self, _: KernelDefinition, _: &PlironOptions) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this program was built without LLVM; enable the feature `cpp` of cubecl-cuda, \
                     which compiles with NVRTC"
                .to_owned(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "ll"
    }
}
