/**
 * The time that builds are told to put into their output, in seconds since 1970 (reproducible-builds.org): 1980-01-01,
 * the earliest that a zip can hold. Equal input then gives equal bytes whatever the clock says (I11).
 */
export const SOURCE_DATE_EPOCH = 315_532_800;
