/** The sizes of the protocol. On one machine they bound memory; disk and CPU count are what the name promises elsewhere. */
export const SIZE_NAMES = ['xs', 'small', 'medium', 'large', 'xl'] as const;
export type SizeName = (typeof SIZE_NAMES)[number];

export const SIZES: Record<SizeName, { vcpus: number; memory_mb: number; disk_size_mb: number }> = {
  xs: { vcpus: 1, memory_mb: 2048, disk_size_mb: 10_240 },
  small: { vcpus: 2, memory_mb: 4096, disk_size_mb: 10_240 },
  medium: { vcpus: 4, memory_mb: 8192, disk_size_mb: 20_480 },
  large: { vcpus: 8, memory_mb: 16_384, disk_size_mb: 40_960 },
  xl: { vcpus: 16, memory_mb: 32_768, disk_size_mb: 81_920 },
};

export const TEMPLATE = 'miosa-sandbox';
