# Becomes its arguments from the second on, after the control group in the first got the filter behind this code and
# the bounding set of capabilities lost what is not to be kept (guard.ts). What a program of root may do is what is in
# that set when it is executed. Ends with 126 and says so when anything of this fails. x86-64, no libraries.
.intel_syntax noprefix
.globl _start
_start:
  mov rbp, rsp                  # argc, arguments, null, environment
  mov rdi, [rbp + 16]           # open(group, O_DIRECTORY | O_CLOEXEC)
  mov esi, 0x90000
  xor edx, edx
  mov eax, 2
  syscall
  test eax, eax
  js fail
  mov r12d, eax
  sub rsp, 80                   # bpf(PROG_LOAD): CGROUP_SKB for CGROUP_INET_EGRESS
  mov rdi, rsp
  xor eax, eax
  mov ecx, 10
  rep stosq
  mov dword ptr [rsp], 8
  mov eax, [rip + count]
  mov [rsp + 4], eax
  lea rcx, [rip + filter]
  mov [rsp + 8], rcx
  lea rcx, [rcx + rax * 8]      # the text behind the filter stands for a licence
  mov [rsp + 16], rcx
  mov dword ptr [rsp + 68], 1
  mov edi, 5
  mov rsi, rsp
  mov edx, 72
  mov eax, 321
  syscall
  test eax, eax
  js fail
  mov [rsp], r12d               # bpf(PROG_ATTACH)
  mov [rsp + 4], eax
  mov dword ptr [rsp + 8], 1
  mov dword ptr [rsp + 12], 0
  mov edi, 8
  mov rsi, rsp
  mov edx, 16
  mov eax, 321
  syscall
  test eax, eax
  js fail
  mov ebx, 63
next:
  mov rax, [rip + keep]
  bt rax, rbx
  jc kept
  mov edi, 24                   # prctl(PR_CAPBSET_DROP)
  mov esi, ebx
  xor edx, edx
  xor r10d, r10d
  xor r8d, r8d
  mov eax, 157
  syscall
  test eax, eax
  jz kept
  cmp eax, -22                  # a number that this kernel has no capability for
  jne fail
kept:
  dec ebx
  jns next
  mov rdi, [rbp + 24]           # execve
  lea rsi, [rbp + 24]
  mov rax, [rbp]
  lea rdx, [rbp + rax * 8 + 16]
  mov eax, 59
  syscall
fail:
  mov edi, 2                    # write(2, text)
  lea rsi, [rip + filter]
  mov eax, [rip + count]
  lea rsi, [rsi + rax * 8]
  mov edx, [rip + length]
  mov eax, 1
  syscall
  mov edi, 126
  mov eax, 60
  syscall
# Put behind the code by guard.ts.
.set keep, .
.set count, . + 8
.set length, . + 12
.set filter, . + 16
