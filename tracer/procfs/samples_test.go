package procfs

// Files as Linux 6.18 prints them, shortened where the lines repeat.

const sampleStatus = `Name:	a\nb\\c d 
Umask:	0022
State:	t (tracing stop)
Tgid:	7306
Ngid:	0
Pid:	7307
PPid:	7304
TracerPid:	99
Uid:	1000	1001	1002	1003
Gid:	4294967294	2001	2002	2003
FDSize:	256
Groups:	4 24 1000 
NStgid:	7306	5	1
NSpid:	7307	6	2
NSpgid:	7304	0	0
NSsid:	5094	0	0
Kthread:	0
VmPeak:	    3060 kB
VmSize:	    3056 kB
VmLck:	       4 kB
VmPin:	       8 kB
VmHWM:	    1616 kB
VmRSS:	    1612 kB
RssAnon:	     112 kB
RssFile:	    1500 kB
RssShmem:	       0 kB
VmData:	     360 kB
VmStk:	     132 kB
VmExe:	      20 kB
VmLib:	    1528 kB
VmPTE:	      40 kB
VmSwap:	      12 kB
HugetlbPages:	    2048 kB
CoreDumping:	0
THP_enabled:	1
untag_mask:	0xffffffffffffffff
Threads:	3
SigQ:	2/96365
SigPnd:	0000000000000001
ShdPnd:	0000000000000200
SigBlk:	7fffffff00000000
SigIgn:	0000000000001000
SigCgt:	00000001800004ec
CapInh:	0000000000000000
CapPrm:	000001fffeffffff
CapEff:	000001fffeffffff
CapBnd:	000001fffeffffff
CapAmb:	0000000000000002
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	1
Speculation_Store_Bypass:	thread vulnerable
SpeculationIndirectBranch:	conditional enabled
Cpus_allowed:	3
Cpus_allowed_list:	0-1
Mems_allowed:	00000000,00000001
Mems_allowed_list:	0
x86_Thread_features:	
x86_Thread_features_locked:	
voluntary_ctxt_switches:	17
nonvoluntary_ctxt_switches:	4
`

// A zombie has no memory, no umask and no groups.
const sampleZombie = `Name:	sh
State:	Z (zombie)
Tgid:	12
Ngid:	0
Pid:	12
PPid:	1
TracerPid:	0
Uid:	0	0	0	0
Gid:	0	0	0	0
FDSize:	0
Groups:	 
Threads:	1
SigQ:	0/96365
`

const sampleStat = "7307 (a) R 1 (\nb) t 7304 7304 5094 34816 -1 4194304 99 1 2 3 4 5 6 7 -51 -5 3 0 138825 " +
	"3133440 360 18446744073709551615 94825649373184 94825649393065 140728682248848 0 0 0 0 0 0 " +
	"0 0 0 17 1 9 2 0 0 0 94825649409072 94825649410688 94826400800768 140728682257091 " +
	"140728682257111 140728682257112 140728682258411 256\n"

const sampleMaps = `00400000-00401000 r-xp 00001000 08:01 1234                               /bin/a b
00401000-00402000 rw-p 00002000 08:01 1234                               /tmp/line\012end (deleted)
00402000-00500000 ---p 00000000 00:00 0 
00600000-00700000 rw-s 00000000 00:01 77                                 /dev/zero (deleted)
00700000-00701000 rw-p 00000000 00:00 0                                  [anon: a b (deleted)]
7fff00000000-7fff00021000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`

const sampleSmaps = `7f0000000000-7f0000200000 rw-p 00000000 00:00 0                          [heap]
Size:               2048 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                2044 kB
Pss:                1022 kB
Pss_Dirty:          1022 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:        16 kB
Private_Dirty:      2028 kB
Referenced:         2044 kB
Anonymous:          2040 kB
KSM:                   0 kB
LazyFree:              0 kB
AnonHugePages:      2032 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Swap:                 24 kB
SwapPss:              12 kB
Locked:                8 kB
THPeligible:           1
ProtectionKey:         3
VmFlags: rd wr mr mw me ac zz sd hg 
7f0000300000-7f0000301000 r--s 0000f000 103:0a 42                        /f
Size:                  4 kB
VmFlags: rd sh mr mw me ms 
`

const sampleFDInfo = `pos:	-12
flags:	02100002
mnt_id:	15
ino:	1057
lock:	1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF
tfd:        5 events:       19 data:         61af401  pos:0 ino:61af sdev:7
inotify wd:2 ino:7388 sdev:800003 mask:800afce ignored_mask:0 fhandle-bytes:8
settime flags: 01
it_value: (0, 49406829)
pos:	99
no colon
`

const sampleTimers = `ID: 1
signal: 60/00007fff86e452a8
notify: signal/pid.2634
ClockID: 0
ID: 0
signal: 60/ffffffffffffffff
notify: none/tid.0
ClockID: -6
ID: 7
signal: 0/0000000000000000
notify: thread/pid.3
ClockID: 1
`

const sampleLimits = `Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              1                    unlimited            seconds   
Max file size             unlimited            unlimited            bytes     
Max data size             unlimited            unlimited            bytes     
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max resident set          unlimited            unlimited            bytes     
Max processes             96365                96365                processes 
Max open files            20000                20001                files     
Max locked memory         8388608              8388608              bytes     
Max address space         unlimited            unlimited            bytes     
Max file locks            unlimited            unlimited            locks     
Max pending signals       96365                96365                signals   
Max msgqueue size         819200               819200               bytes     
Max nice priority         0                    40                   
Max realtime priority     0                    0                    
Max realtime timeout      unlimited            unlimited            us        
`

const sampleCgroup = `9:name=systemd:/
3:cpu,cpuacct:/a:b
0::/../x y (deleted)
`

const sampleSched = "x\nse.exec_start: (7311, #threads: 1)\n" +
	"-------------------------------------------------------------------\n" +
	"se.exec_start                                :       1387655.424752\n" +
	"se.vruntime                                  :            96.156455\n"
