//! Host memory of a component's instance, computed from the component before it is compiled.
//!
//! wasmtime keeps a `VMContext` for each core instance on the heap. It has an entry for each import, each definition,
//! and each function that a table or another instance refers to. A component with a language runtime has dozens of core
//! instances and thousands of such functions.
//!
//! The engine rejects a component whose contexts are larger than [`InstanceCost::vmctx_bytes`]. So the charge is never
//! less than the memory.

use crate::engine::resource_limiter::{CORE_INSTANCES, TABLE_ELEMENT_BYTES};
use std::collections::HashSet;
use std::ops::AddAssign;
use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ComponentType, ConstExpr, ElementItems, ElementKind, ExternalKind,
    Instance, Operator, Parser, Payload, TableInit, TypeRef,
};

/// Host memory of a wasmtime store without an instance, in bytes. [`InstanceCost`] adds the instance. Tests measure
/// that the sum suffices.
const STORE_BYTES: usize = 12 * 1024;

/// Reciprocal of the maximum part that the allocator adds to a size. Its size classes are that far apart.
const ALLOCATOR_SHARE: usize = 4;

/// Host memory of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct InstanceCost {
    /// Maximum size of wasmtime's contexts, as `max_component_instance_size` counts it, in bytes.
    pub(crate) vmctx_bytes: usize,
    /// Other heap memory of the instance, in bytes.
    heap_bytes: usize,
    /// Initial size of its memories and tables, in bytes. This is guest memory.
    pub(crate) initial_bytes: usize,
}

// Memory of wasmtime on a 64-bit machine. The first number follows `vmoffsets.rs` and `vmcomponent_offsets.rs`, and the
// second one was measured.

/// A core instance: its state, the fixed part of its context, its start function, and its entries in the store.
const CORE_INSTANCE: InstanceCost = InstanceCost::host_side(288, 64);
/// An imported function.
const IMPORTED_FUNCTION: InstanceCost = InstanceCost::host_side(32, 0);
/// An imported memory, table, global or tag.
const IMPORT: InstanceCost = InstanceCost::host_side(24, 0);
/// A defined global or tag.
const DEFINITION: InstanceCost = InstanceCost::host_side(16, 0);
/// A defined memory: two pointers to it, and its mapping.
const MEMORY: InstanceCost = InstanceCost::host_side(24, 1024);
/// A defined table.
const TABLE: InstanceCost = InstanceCost::host_side(16, 512);
/// A function that is referenced, and not only called.
const REFERENCED_FUNCTION: InstanceCost = InstanceCost::host_side(32, 0);
/// An element of a passive segment, for `table.init`.
const PASSIVE_ELEMENT: InstanceCost = InstanceCost::host_side(0, 16);
/// A data segment.
const DATA_SEGMENT: InstanceCost = InstanceCost::host_side(12, 0);
/// A component without its parts.
const COMPONENT: InstanceCost = InstanceCost::host_side(512, 512);
/// A component instance: its flags, and its tables of handles.
const COMPONENT_INSTANCE: InstanceCost = InstanceCost::host_side(32, 512);
/// A resource type: its destructor.
const RESOURCE_TYPE: InstanceCost = InstanceCost::host_side(16, 0);
/// A function of the canonical ABI: its trampoline, its lowering, and its options.
const CANONICAL: InstanceCost = InstanceCost::host_side(112, 0);
/// An adapter between components inside of a component. wasmtime makes a core instance for one or several of them, with
/// about ten imports for each.
const ADAPTER: InstanceCost = InstanceCost::host_side(288 + 10 * 32, 256);

/// Default page size of a memory: 64 KiB.
const PAGE_LOG2: u32 = 16;

impl InstanceCost {
    /// Reads the sections of a component, and adds up the cost of its instances.
    ///
    /// # Errors
    /// The bytes are not a valid component.
    pub(crate) fn of(component: &[u8]) -> wasmparser::Result<Self> {
        let mut reader = ComponentReader::default();
        for payload in Parser::new(0).parse_all(component) {
            reader.read(payload?)?;
        }
        Ok(reader.total())
    }

    /// Host memory of an instance with its store and the allocator's rounding, in bytes.
    pub(crate) fn total_bytes(self) -> usize {
        let sum = self.vmctx_bytes.saturating_add(self.heap_bytes);
        STORE_BYTES.saturating_add(sum.saturating_add(sum / ALLOCATOR_SHARE))
    }

    const fn host_side(vmctx_bytes: usize, heap_bytes: usize) -> Self {
        InstanceCost {
            vmctx_bytes,
            heap_bytes,
            initial_bytes: 0,
        }
    }

    fn times(self, count: usize) -> Self {
        InstanceCost {
            vmctx_bytes: self.vmctx_bytes.saturating_mul(count),
            heap_bytes: self.heap_bytes.saturating_mul(count),
            initial_bytes: self.initial_bytes.saturating_mul(count),
        }
    }

    fn max(self, other: Self) -> Self {
        InstanceCost {
            vmctx_bytes: self.vmctx_bytes.max(other.vmctx_bytes),
            heap_bytes: self.heap_bytes.max(other.heap_bytes),
            initial_bytes: self.initial_bytes.max(other.initial_bytes),
        }
    }
}

impl AddAssign for InstanceCost {
    fn add_assign(&mut self, other: Self) {
        self.vmctx_bytes = self.vmctx_bytes.saturating_add(other.vmctx_bytes);
        self.heap_bytes = self.heap_bytes.saturating_add(other.heap_bytes);
        self.initial_bytes = self.initial_bytes.saturating_add(other.initial_bytes);
    }
}

/// State of reading a component.
#[derive(Default)]
struct ComponentReader {
    /// The definition that is being read, and the ones around it, outermost first.
    open: Vec<OpenDefinition>,
    /// Cost of the outermost component.
    total: InstanceCost,
    /// Cost of the largest module.
    largest: InstanceCost,
    /// Whether a module is instantiated that is not known here, such as an argument.
    is_partly_unknown: bool,
}

enum OpenDefinition {
    Module(ModuleCost),
    Component(ComponentCost),
}

/// A component, with the cost of each instance.
#[derive(Default)]
struct ComponentCost {
    instance_cost: InstanceCost,
    /// Modules by index. `None` for a module that is defined elsewhere.
    modules: Vec<Option<InstanceCost>>,
    components: Vec<Option<InstanceCost>>,
}

/// A module, with the cost of each instance.
#[derive(Default)]
struct ModuleCost {
    instance_cost: InstanceCost,
    /// Functions that are referenced: exported, in tables, in globals.
    referenced: HashSet<u32>,
}

impl ComponentReader {
    fn total(self) -> InstanceCost {
        let mut total = self.total;
        if self.is_partly_unknown {
            // The number of core instances is limited, whichever modules they are of. Their initial memory is charged
            // when they start.
            let mut unknown = self.largest.times(CORE_INSTANCES);
            unknown.initial_bytes = 0;
            total += unknown;
        }
        total
    }

    fn read(&mut self, payload: Payload<'_>) -> wasmparser::Result<()> {
        if let Payload::Version { encoding, .. } = payload {
            self.open.push(match encoding {
                wasmparser::Encoding::Module => OpenDefinition::Module(ModuleCost::default()),
                wasmparser::Encoding::Component => {
                    OpenDefinition::Component(ComponentCost::default())
                }
            });
            return Ok(());
        }
        if let Payload::End(_) = payload {
            self.close();
            return Ok(());
        }
        let is_inner = self.open.len() > 1;
        match self.open.last_mut() {
            Some(OpenDefinition::Module(module)) => module.read(payload),
            Some(OpenDefinition::Component(_)) => self.read_in_component(payload, is_inner),
            None => Ok(()),
        }
    }

    /// Ends the current definition. The definitions around it can instantiate it.
    fn close(&mut self) {
        match self.open.pop() {
            Some(OpenDefinition::Module(module)) => {
                let instance_cost = module.total();
                self.largest = self.largest.max(instance_cost);
                if let Some(OpenDefinition::Component(outer)) = self.open.last_mut() {
                    outer.modules.push(Some(instance_cost));
                }
            }
            Some(OpenDefinition::Component(component)) => {
                let mut instance_cost = component.instance_cost;
                instance_cost += COMPONENT_INSTANCE;
                match self.open.last_mut() {
                    Some(OpenDefinition::Component(outer)) => {
                        outer.components.push(Some(instance_cost))
                    }
                    _ => {
                        self.total = instance_cost;
                        self.total += COMPONENT;
                    }
                }
            }
            None => {}
        }
    }

    fn read_in_component(
        &mut self,
        payload: Payload<'_>,
        is_inner: bool,
    ) -> wasmparser::Result<()> {
        match payload {
            Payload::InstanceSection(instances) => {
                for instance in instances {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        self.instantiate(|component| &component.modules, module_index);
                    }
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances {
                    if let ComponentInstance::Instantiate {
                        component_index, ..
                    } = instance?
                    {
                        self.instantiate(|component| &component.components, component_index);
                    }
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions {
                    self.add(CANONICAL);
                    if is_inner && matches!(function?, CanonicalFunction::Lower { .. }) {
                        self.add(ADAPTER);
                    }
                }
            }
            Payload::ComponentTypeSection(types) => {
                for ty in types {
                    if let ComponentType::Resource { .. } = ty? {
                        self.add(RESOURCE_TYPE);
                    }
                }
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    self.define(import?.ty.kind(), None);
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    let defined = self.defined(0, export.kind, export.index);
                    self.define(export.kind, defined);
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases {
                    match alias? {
                        ComponentAlias::InstanceExport { kind, .. } => self.define(kind, None),
                        ComponentAlias::Outer { kind, count, index } => {
                            let kind = match kind {
                                ComponentOuterAliasKind::CoreModule => {
                                    ComponentExternalKind::Module
                                }
                                ComponentOuterAliasKind::Component => {
                                    ComponentExternalKind::Component
                                }
                                ComponentOuterAliasKind::CoreType
                                | ComponentOuterAliasKind::Type => continue,
                            };
                            let defined = self.defined(count, kind, index);
                            self.define(kind, defined);
                        }
                        ComponentAlias::CoreInstanceExport { .. } => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the current component, or one around it.
    fn component(&mut self, outward: u32) -> Option<&mut ComponentCost> {
        let index = self
            .open
            .len()
            .checked_sub(1)?
            .checked_sub(usize::try_from(outward).ok()?)?;
        match self.open.get_mut(index)? {
            OpenDefinition::Component(component) => Some(component),
            OpenDefinition::Module(_) => None,
        }
    }

    fn add(&mut self, instance_cost: InstanceCost) {
        if let Some(component) = self.component(0) {
            component.instance_cost += instance_cost;
        }
    }

    fn instantiate(&mut self, of: fn(&ComponentCost) -> &Vec<Option<InstanceCost>>, index: u32) {
        let known = usize::try_from(index).ok().and_then(|index| {
            let component = self.component(0)?;
            *of(component).get(index)?
        });
        match known {
            Some(instance_cost) => self.add(instance_cost),
            None => self.is_partly_unknown = true,
        }
    }

    fn defined(
        &mut self,
        outward: u32,
        kind: ComponentExternalKind,
        index: u32,
    ) -> Option<InstanceCost> {
        let component = self.component(outward)?;
        let defined = match kind {
            ComponentExternalKind::Module => &component.modules,
            ComponentExternalKind::Component => &component.components,
            _ => return None,
        };
        *defined.get(usize::try_from(index).ok()?)?
    }

    fn define(&mut self, kind: ComponentExternalKind, instance_cost: Option<InstanceCost>) {
        let Some(component) = self.component(0) else {
            return;
        };
        match kind {
            ComponentExternalKind::Module => component.modules.push(instance_cost),
            ComponentExternalKind::Component => component.components.push(instance_cost),
            _ => {}
        }
    }
}

impl ModuleCost {
    fn total(mut self) -> InstanceCost {
        self.instance_cost += CORE_INSTANCE;
        self.instance_cost += REFERENCED_FUNCTION.times(self.referenced.len());
        self.instance_cost
    }

    fn read(&mut self, payload: Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    self.instance_cost += match import?.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => IMPORTED_FUNCTION,
                        _ => IMPORT,
                    };
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    let table = table?;
                    let elements = usize::try_from(table.ty.initial).unwrap_or(usize::MAX);
                    self.instance_cost += TABLE;
                    self.add_initial(elements.saturating_mul(TABLE_ELEMENT_BYTES));
                    if let TableInit::Expr(value) = table.init {
                        self.reference(&value)?;
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    let memory = memory?;
                    let page_bytes = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(PAGE_LOG2));
                    let page_bytes = page_bytes.unwrap_or(u64::MAX);
                    let bytes = memory.initial.saturating_mul(page_bytes);
                    self.instance_cost += MEMORY;
                    self.add_initial(usize::try_from(bytes).unwrap_or(usize::MAX));
                }
            }
            Payload::TagSection(tags) => {
                self.instance_cost += DEFINITION.times(count(tags.count()));
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    self.instance_cost += DEFINITION;
                    self.reference(&global?.init_expr)?;
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    if matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact) {
                        self.referenced.insert(export.index);
                    }
                }
            }
            Payload::ElementSection(segments) => {
                for segment in segments {
                    let segment = segment?;
                    let elements = match segment.items {
                        ElementItems::Functions(functions) => {
                            let elements = functions.count();
                            for function in functions {
                                self.referenced.insert(function?);
                            }
                            elements
                        }
                        ElementItems::Expressions(_, values) => {
                            let elements = values.count();
                            for value in values {
                                self.reference(&value?)?;
                            }
                            elements
                        }
                    };
                    if let ElementKind::Passive = segment.kind {
                        self.instance_cost += PASSIVE_ELEMENT.times(count(elements));
                    }
                }
            }
            Payload::DataSection(segments) => {
                self.instance_cost += DATA_SEGMENT.times(count(segments.count()));
            }
            _ => {}
        }
        Ok(())
    }

    fn add_initial(&mut self, bytes: usize) {
        self.instance_cost.initial_bytes = self.instance_cost.initial_bytes.saturating_add(bytes);
    }

    /// Records the functions that a constant expression refers to.
    fn reference(&mut self, constant: &ConstExpr<'_>) -> wasmparser::Result<()> {
        for operator in constant.get_operators_reader() {
            if let Operator::RefFunc { function_index } = operator? {
                self.referenced.insert(function_index);
            }
        }
        Ok(())
    }
}

fn count(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn instance_cost(component: &str) -> InstanceCost {
        InstanceCost::of(&wat::parse_str(component).unwrap()).unwrap()
    }

    const MODULE: &str = r#"(core module $m
        (memory 2)
        (table 3 funcref)
        (func $a (export "a") (export "b"))
        (func $c)
        (func $called_only)
        (elem (i32.const 0) $a $c)
        (global funcref (ref.func $c)))"#;

    /// Cost of one instance of [`MODULE`].
    fn instance() -> InstanceCost {
        let mut instance = CORE_INSTANCE;
        instance += MEMORY;
        instance += TABLE;
        instance += DEFINITION;
        instance += REFERENCED_FUNCTION.times(2);
        instance.initial_bytes = 2 * 64 * 1024 + 3 * TABLE_ELEMENT_BYTES;
        instance
    }

    fn total(component_instances: usize, core_instances: usize) -> InstanceCost {
        let mut total = COMPONENT;
        total += COMPONENT_INSTANCE.times(component_instances);
        total += instance().times(core_instances);
        total
    }

    #[test]
    fn a_module_counts_as_often_as_it_is_instantiated() {
        let none = format!("(component {MODULE})");
        assert_eq!(instance_cost(&none), total(1, 0));
        let two = format!(
            "(component {MODULE} (core instance (instantiate $m)) (core instance (instantiate $m)))"
        );
        assert_eq!(instance_cost(&two), total(1, 2));
        let inner = format!(
            "(component {MODULE}
                (component $c
                    (core instance (instantiate $m))
                    (alias outer 1 $m (core module $n))
                    (core instance (instantiate $n)))
                (instance (instantiate $c))
                (instance (instantiate $c)))"
        );
        assert_eq!(instance_cost(&inner), total(3, 4));
    }

    #[test]
    fn what_is_not_told_is_as_much_as_is_allowed() {
        let component = format!(
            "(component {MODULE}
                (component $c (import \"m\" (core module $given)) (core instance (instantiate $given)))
                (instance (instantiate $c (with \"m\" (core module $m)))))"
        );
        let mut expected = total(2, 0);
        expected += InstanceCost {
            initial_bytes: 0,
            ..instance().times(CORE_INSTANCES)
        };
        assert_eq!(instance_cost(&component), expected);
    }

    #[test]
    fn sums_have_an_end_and_what_is_no_component_an_error() {
        let mut component = String::from("(component $c0)");
        for depth in 1..100 {
            let instances = format!("(instance (instantiate $c{}))", depth - 1).repeat(8);
            component = format!("(component $c{depth} {component} {instances})");
        }
        assert_eq!(instance_cost(&component).total_bytes(), usize::MAX);
        assert!(InstanceCost::of(b"no component").is_err());
        let pages = r#"(component (core module $m (memory i64 0xffffffffffff)) (core instance (instantiate $m)))"#;
        assert_eq!(instance_cost(pages).initial_bytes, usize::MAX - 0xffff);
    }
}
