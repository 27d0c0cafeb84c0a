//! The conformance suite as WGSL shaders on Vulkan.
//!
//! Any Vulkan adapter will do; Mesa's lavapipe is one made of the processor alone. Without an
//! adapter the test says so and passes, and fails where IST_REQUIRE_WGPU is 1.

use std::io::Write;

use ist_experiments::lab::selftest;
use ist_experiments::machine::device;
use ist_experiments::machine::live_bytes::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// burn panics there; we look for driver, headers and NVRTC first.
#[cfg(feature = "cuda")]
#[test]
fn a_card_that_is_absent_is_refused_with_what_is_missing() {
    if let Err(failure) = device::open("cuda") {
        let message = failure.to_string();
        assert!(["NVIDIA", "CUDA", "NVRTC"].iter().any(|part| message.contains(part)), "{message}");
        assert_eq!(failure.exit_code(), 2);
    }
    let listed =
        device::list().into_iter().find(|device| device.name == "cuda").expect("cuda is listed");
    assert_eq!(
        (listed.compiled, listed.present),
        (true, device::open("cuda").is_ok()),
        "{listed:?}"
    );
}

#[test]
fn every_check_holds_as_shaders() {
    let device = match device::open("wgpu") {
        Ok(device) => device,
        Err(error) => {
            let required = std::env::var("IST_REQUIRE_WGPU").is_ok_and(|value| value == "1");
            assert!(!required, "IST_REQUIRE_WGPU is 1, but {error}");
            // Unlike a printed line this one is not held back when the test passes.
            let message = format!("\nSKIPPED: nothing was run: {error}\n\n");
            std::io::stderr().write_all(message.as_bytes()).expect("stderr can be written");
            return;
        }
    };
    let checks = selftest::checks();
    assert!(checks.len() > 40, "{} checks", checks.len());
    let lines: Vec<_> = checks.iter().map(|check| selftest::run(check, &device)).collect();
    for line in &lines {
        println!("{line:?}");
    }
    let failed: Vec<_> = lines.iter().filter(|line| !line.holds).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
