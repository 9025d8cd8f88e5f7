;; A guest that grows its table until the host refuses, and then traps, as a language's runtime would.
(module
  (table $t 1 funcref)
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "millpond:media/media-serve@0.2.0#handle")
    (param i32 i32 i32 i32 i32 i32 i64 i64 i32 i32 i32) (result i32)
    (loop $again
      (br_if $again
        (i32.ne (table.grow $t (ref.null func) (i32.const 1024)) (i32.const -1))))
    unreachable))
