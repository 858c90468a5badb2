/* SPDX-License-Identifier: Apache-2.0 */
/* examples/quickstart.c in Rust over the C ABI, without crates: calls one op on the CPU, compares the result with its own, and
 * prints the same line. */
use std::ffi::{c_void, CStr};
use std::mem::size_of;
use std::os::raw::{c_char, c_int};
use std::ptr::null;

#[repr(C)]
#[derive(Clone, Copy)]
struct Device {
    device_type: c_int,
    device_id: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    ndim: i32,
    dtype: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct Rmsnorm {
    size: usize,
    out: *mut Tensor,
    input: *const Tensor,
    weight: *const Tensor,
    eps: f64,
}

/* What the C compiler makes of DLTensor and of struct flashinfer_rmsnorm on 64-bit machines. */
const _: () = assert!(size_of::<Tensor>() == 48 && size_of::<Rmsnorm>() == 40);

extern "C" {
    fn flashinfer_rmsnorm(args: *const Rmsnorm, exec: *const c_void) -> c_int;
    fn flashinfer_last_error() -> *const c_char;
}

const CPU: Device = Device { device_type: 1, device_id: 0 };
const F16: DataType = DataType { code: 2, bits: 16, lanes: 1 };

/* Of the normal numbers that occur here. */
fn f16_to_f64(bits: u16) -> f64 {
    (1.0 + f64::from(bits & 0x3ff) / 1024.0) * 2f64.powi(i32::from(bits >> 10) - 15)
}

fn main() {
    let mut x: [u16; 8] = [0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800];
    let mut ones = [0x3c00u16; 8];
    let mut y = [0u16; 8];
    let mut shape = [1i64, 8];
    let tensor = |data: &mut [u16; 8], shape: &mut [i64]| Tensor {
        data: data.as_mut_ptr().cast(),
        device: CPU,
        ndim: shape.len() as i32,
        dtype: F16,
        shape: shape.as_mut_ptr(),
        strides: null::<i64>() as *mut i64,
        byte_offset: 0,
    };
    let input = tensor(&mut x, &mut shape);
    let weight = tensor(&mut ones, &mut shape[1..]);
    let mut out = Tensor { data: y.as_mut_ptr().cast(), ..input };
    let args = Rmsnorm { size: size_of::<Rmsnorm>(), out: &mut out, input: &input, weight: &weight, eps: 0.0 };
    if unsafe { flashinfer_rmsnorm(&args, null()) } != 0 {
        eprintln!("{}", unsafe { CStr::from_ptr(flashinfer_last_error()) }.to_string_lossy());
        std::process::exit(1);
    }
    let mean_square: f64 = (1..=8).map(|i| f64::from(i * i)).sum::<f64>() / 8.0;
    for (i, &bits) in y.iter().enumerate() {
        let expected = (i + 1) as f64 / (mean_square + 1e-6).sqrt();
        let given = f16_to_f64(bits);
        assert!((given - expected).abs() <= expected / 2048.0, "element {} is {}, must be {}", i, given, expected);
        print!("{:04x} ", bits);
    }
    println!();
}
