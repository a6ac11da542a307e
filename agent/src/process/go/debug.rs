//! The offsets of a Go program's own build, from its debug information (DWARF): for releases that [`super::releases`] does not
//! know. That may be large, so it is bounded, and read only then.

use gimli::{AttributeValue, DebuggingInformationEntry, Dwarf, EndianSlice, LittleEndian, SectionId, Unit, UnitOffset};

/// Offsets of fields in octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offsets {
    pub(super) g_m: u32,
    pub(super) g_goid: u32,
    /// 0: there is no such field.
    pub(super) g_parent: u32,
    pub(super) m_curg: u32,
    pub(super) m_p: u32,
    pub(super) m_oldp: u32,
    pub(super) p_goidcache: u32,
}

type Octets<'a> = EndianSlice<'a, LittleEndian>;

/// Reads the offsets; `section` gives the octets of a section by its name, or none.
pub(super) fn offsets<'a>(section: impl Fn(&str) -> &'a [u8]) -> Option<Offsets> {
    let load = |id: SectionId| Ok::<_, gimli::Error>(EndianSlice::new(section(id.name()), LittleEndian));
    let dwarf = Dwarf::load(load).ok()?;
    let mut found = Offsets::default();
    let mut structures = 0;
    let mut units = dwarf.units();
    while let Ok(Some(header)) = units.next() {
        let unit = dwarf.unit(header).ok()?;
        let mut entries = unit.entries();
        while let Ok(Some(entry)) = entries.next_dfs() {
            if entry.tag() != gimli::DW_TAG_structure_type {
                continue;
            }
            let fields: &mut [(&str, &mut u32)] = match name(&dwarf, &unit, entry) {
                Some(b"runtime.g") => {
                    &mut [("m", &mut found.g_m), ("goid", &mut found.g_goid), ("parentGoid", &mut found.g_parent)]
                }
                Some(b"runtime.m") => {
                    &mut [("curg", &mut found.m_curg), ("p", &mut found.m_p), ("oldp", &mut found.m_oldp)]
                }
                Some(b"runtime.p") => &mut [("goidcache", &mut found.p_goidcache)],
                _ => continue,
            };
            members(&dwarf, &unit, entry.offset(), fields)?;
            structures += 1;
            if structures == 3 {
                let needed = [found.g_m, found.g_goid, found.m_curg, found.m_p, found.m_oldp, found.p_goidcache];
                return needed.iter().all(|offset| *offset != 0).then_some(found);
            }
        }
    }
    None
}

fn name<'a>(
    dwarf: &Dwarf<Octets<'a>>,
    unit: &Unit<Octets<'a>>,
    entry: &DebuggingInformationEntry<Octets<'a>>,
) -> Option<&'a [u8]> {
    let value = entry.attr_value(gimli::DW_AT_name)?;
    dwarf.attr_string(unit, value).ok().map(|name| name.slice())
}

/// Looks up fields of the structure whose entry is at `offset`; none of them is the structure's first.
fn members(
    dwarf: &Dwarf<Octets<'_>>,
    unit: &Unit<Octets<'_>>,
    offset: UnitOffset,
    fields: &mut [(&str, &mut u32)],
) -> Option<()> {
    let mut tree = unit.entries_tree(Some(offset)).ok()?;
    let mut children = tree.root().ok()?.children();
    while let Some(child) = children.next().ok()? {
        let entry = child.entry();
        let Some(name) = name(dwarf, unit, entry) else { continue };
        if let Some((_, place)) = fields.iter_mut().find(|(field, _)| field.as_bytes() == name) {
            let at = entry.attr_value(gimli::DW_AT_data_member_location).as_ref().and_then(AttributeValue::udata_value);
            **place = u32::try_from(at?).ok()?;
        }
    }
    Some(())
}
