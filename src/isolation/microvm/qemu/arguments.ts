import { basename } from 'node:path';
import type { VmNetwork, VmSpec } from '../hypervisor.ts';

export type Accelerator = 'kvm' | 'tcg';

const MIB = 1024 * 1024;
/** Inside every guest with network `egress`; an address of QEMU's user network, not of the host's. */
export const EGRESS_ADDRESS = '10.0.2.100:3128';

/**
 * QEMU's command line. All files are named relative to the VM's folder, which is QEMU's working folder: an
 * unprivileged QEMU need not be able to look into the data folder.
 *
 * The devices are the least that does the job: no PCI, no graphics, no USB, no monitor; virtio drives, one virtio
 * serial card with named ports, a random source, and a user-mode network card where the policy has one.
 */
export function qemuArguments(o: {
  spec: VmSpec;
  accelerator: Accelerator;
  /** File names inside the VM's folder, by host path. */
  names: ReadonlyMap<string, string>;
  socat: string | null;
  /** Clock of the host's processor. kHz; null when unknown. */
  tsc_khz: number | null;
}): string[] {
  const { spec } = o;
  const name = (path: string) => o.names.get(path)!;
  return [
    ...['-M', 'microvm,rtc=on', '-accel', o.accelerator, '-cpu', o.accelerator === 'kvm' ? 'host' : 'max'],
    ...[
      '-nodefaults',
      '-no-user-config',
      '-nographic',
      '-no-reboot',
      '-monitor',
      'none',
      '-parallel',
      'none',
    ],
    ...['-sandbox', sandbox(spec.network)],
    ...['-m', `${Math.ceil(spec.memory_bytes / MIB)}M`, '-smp', String(spec.vcpus)],
    ...['-kernel', name(spec.kernel), '-initrd', name(spec.initramfs)],
    ...['-append', [...kernelArguments(o.accelerator, o.tsc_khz), ...spec.cmdline].join(' ')],
    ...['-chardev', 'file,id=console,path=console.log', '-serial', 'chardev:console'],
    ...['-device', 'virtio-rng-device'],
    ...spec.drives.flatMap((drive) => [
      '-drive',
      [
        ...[`id=${drive.name}`, 'if=none', 'format=raw', `file=${name(drive.path)}`],
        // What is thrown away or read back by this host at once needs no flush to the disk.
        ...[
          `cache=${drive.name === 'cache' ? 'writeback' : 'unsafe'}`,
          `readonly=${drive.read_only ? 'on' : 'off'}`,
        ],
      ].join(','),
      '-device',
      `virtio-blk-device,drive=${drive.name},serial=${drive.name}`,
    ]),
    ...['-device', 'virtio-serial-device'],
    ...spec.channels.flatMap((channel) => [
      '-chardev',
      channel.to === 'file'
        ? `file,id=${channel.name},path=${channel.name}.log`
        : `socket,id=${channel.name},path=${channel.name}.sock,server=on,wait=off`,
      '-device',
      `virtserialport,chardev=${channel.name},name=kiln.${channel.name}`,
    ]),
    ...networkArguments(spec.network, o.socat),
  ];
}

/**
 * An emulated guest measures its clock against a timer that a busy host does not serve in time; the kernel then gives
 * up on the clock and waits for ever. So it is told: the guest's time stamp counter is the host's.
 */
function kernelArguments(accelerator: Accelerator, tsc_khz: number | null): string[] {
  const clock =
    accelerator === 'tcg'
      ? [
          'no_timer_check',
          'mitigations=off',
          'cryptomgr.notests',
          ...(tsc_khz ? [`tsc_early_khz=${tsc_khz}`] : []),
        ]
      : [];
  return ['console=ttyS0', 'quiet', 'panic=-1', 'reboot=t', ...clock];
}

/**
 * Processes are only needed by the way to the proxy: one relay per connection, which begins with setsid; QEMU counts
 * that as a privilege. There is none to be had: QEMU has a user without rights and the flag against new privileges.
 */
function sandbox(network: VmNetwork): string {
  const relay = network.kind === 'egress' ? 'allow' : 'deny';
  return `on,obsolete=deny,elevateprivileges=${relay},spawn=${relay},resourcecontrol=deny`;
}

/** The agent tells its cards apart by these (guest/steps.sh). */
const CARDS = { inside: '52:54:00:6b:00:01', outside: '52:54:00:6b:00:02' };

/**
 * `inside` is cut off from everything but what is forwarded. `outside` has the world, and by QEMU's ways the host's
 * loopback under the gateway's address, which the agent closes; answers to a forwarded port need that address, so
 * the two cannot be one card.
 */
function networkArguments(network: VmNetwork, socat: string | null): string[] {
  if (network.kind === 'none') return ['-nic', 'none'];
  const card = (name: keyof typeof CARDS, options: readonly string[]) => [
    ...['-netdev', ['user', `id=${name}`, 'ipv6=off', ...options].join(',')],
    ...['-device', `virtio-net-device,netdev=${name},mac=${CARDS[name]}`],
  ];
  if (network.kind === 'egress') {
    const relay = `${socat} - UNIX-CONNECT:${basename(network.socket_path)}`;
    return card('inside', ['restrict=on', `guestfwd=tcp:${EGRESS_ADDRESS}-cmd:${relay}`]);
  }
  const forward = `hostfwd=tcp:127.0.0.1:${network.host_port}-:${network.guest_port}`;
  const outside = network.outbound ? card('outside', ['net=10.0.3.0/24']) : [];
  return [...card('inside', ['restrict=on', forward]), ...outside];
}
