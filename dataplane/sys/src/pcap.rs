//! Filter expressions, compiled by the libpcap of this host: it is loaded when the first expression comes, so that
//! nobody needs it who gives none.
//!
//! Main thread, before privileges are given up: a name in an expression may be looked up in files or by DNS.
//! See pcap-filter(7), pcap_compile(3PCAP).

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::slice;

/// Names the library goes by: Debian's, and others'.
const NAMES: [&CStr; 3] = [c"libpcap.so.0.8", c"libpcap.so.1", c"libpcap.so"];

/// Bytes of a packet that may be looked at, and those of a file with no limit.
const SNAP: c_int = 262_144;

/// `struct bpf_insn`: code, where to go if true and if false, operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

const _: () = assert!(size_of::<Instruction>() == 8);

/// `struct bpf_program`.
#[repr(C)]
struct Program {
    len: c_uint,
    code: *mut Instruction,
}

type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut c_void;
type Compile = unsafe extern "C" fn(*mut c_void, *mut Program, *const c_char, c_int, u32) -> c_int;
type GetError = unsafe extern "C" fn(*mut c_void) -> *const c_char;
type FreeCode = unsafe extern "C" fn(*mut Program);
type Close = unsafe extern "C" fn(*mut c_void);

/// An expression could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("there is no libpcap on this host, which compiles filter expressions")]
    NoLibrary,
    /// In libpcap's words.
    #[error("{0}")]
    Expression(String),
}

/// The functions of the library that are used; it stays loaded.
struct Library {
    open_dead: OpenDead,
    compile: Compile,
    get_error: GetError,
    free_code: FreeCode,
    close: Close,
}

impl Library {
    fn load() -> Option<Library> {
        let handle = NAMES.iter().find_map(|name| {
            // SAFETY: `name` is a C string; libpcap's initialisation asks nothing of the program.
            let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
            (!handle.is_null()).then_some(handle)
        })?;
        let find = |name: &CStr| {
            // SAFETY: `handle` is of a library that was loaded and is never unloaded; `name` is a C string.
            let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
            (!symbol.is_null()).then_some(symbol)
        };
        let (open_dead, compile) = (find(c"pcap_open_dead")?, find(c"pcap_compile")?);
        let (get_error, free_code, close) =
            (find(c"pcap_geterr")?, find(c"pcap_freecode")?, find(c"pcap_close")?);
        // SAFETY: each symbol is the function of that name, whose signature libpcap has kept since 1.0 and which the
        // type repeats.
        unsafe {
            Some(Library {
                open_dead: std::mem::transmute::<*mut c_void, OpenDead>(open_dead),
                compile: std::mem::transmute::<*mut c_void, Compile>(compile),
                get_error: std::mem::transmute::<*mut c_void, GetError>(get_error),
                free_code: std::mem::transmute::<*mut c_void, FreeCode>(free_code),
                close: std::mem::transmute::<*mut c_void, Close>(close),
            })
        }
    }
}

/// Compiles an expression for packets of this link type (a DLT_ number).
///
/// # Errors
/// The expression is wrong, or means nothing for this link type; or there is no library.
pub fn compile(expression: &str, link: i32) -> Result<Vec<Instruction>, CompileError> {
    /// PCAP_NETMASK_UNKNOWN
    const NO_NETMASK: u32 = u32::MAX;
    let Ok(text) = CString::new(expression) else {
        return Err(CompileError::Expression("the expression has a zero byte in it".to_owned()));
    };
    let library = Library::load().ok_or(CompileError::NoLibrary)?;
    // SAFETY: takes two numbers, gives a handle of its own or null.
    let handle = unsafe { (library.open_dead)(link, SNAP) };
    if handle.is_null() {
        return Err(CompileError::Expression("libpcap has no memory".to_owned()));
    }
    let mut program = Program { len: 0, code: ptr::null_mut() };
    // SAFETY: the handle is open, `program` is live and writable, `text` is a C string; 1 asks to optimise.
    let failed = unsafe { (library.compile)(handle, &raw mut program, text.as_ptr(), 1, NO_NETMASK) };
    let result = if failed == 0 && !program.code.is_null() {
        // SAFETY: it succeeded, so that `code` points to `len` whole instructions until they are freed.
        let code = unsafe { slice::from_raw_parts(program.code, program.len as usize) }.to_vec();
        // SAFETY: the program is one that was compiled, and is not used again.
        unsafe { (library.free_code)(&raw mut program) };
        Ok(code)
    } else {
        // SAFETY: the handle is open; the text it points to lives until the handle's next use.
        let words = unsafe { CStr::from_ptr((library.get_error)(handle)) };
        Err(CompileError::Expression(words.to_string_lossy().into_owned()))
    };
    // SAFETY: the handle is open and not used again.
    unsafe { (library.close)(handle) };
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET: i32 = 1;

    #[test]
    fn an_expression_is_compiled_or_explained() {
        let code = match compile("ip", ETHERNET) {
            Err(CompileError::NoLibrary) => {
                println!("skipped: no libpcap on this host");
                return;
            }
            code => code.unwrap(),
        };
        // ldh [12]; jeq #0x800; ret; ret
        assert_eq!(code[0], Instruction { code: 0x28, jt: 0, jf: 0, k: 12 });
        assert_eq!(code[1], Instruction { code: 0x15, jt: 0, jf: 1, k: 0x800 });
        assert_eq!(code.len(), 4);
        let error = compile("hots 10.0.0.1", ETHERNET).unwrap_err();
        assert_eq!(error.to_string(), "can't parse filter expression: syntax error");
        assert!(compile("a\0b", ETHERNET).is_err());
    }
}
