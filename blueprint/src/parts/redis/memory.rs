//! What a Redis node does with its memory. The pod is killed above its limit, and `maxmemory` bounds only a part of what it takes:
//! the keys, the connections and the replication backlog, but neither what replicas are still to be sent beyond the backlog nor
//! the second copy of what changes while a child process writes the data out.

use taskplatform_crds::Size;

use super::RedisCluster;

const MIB: u64 = 1 << 20;

/// The program, its libraries and its threads: 12 to 14 MiB were measured without a key.
const PROGRAM: u64 = 16;

/// What counts towards `maxmemory` without a key.
const EMPTY: u64 = 2 * MIB;

/// Redis 8.0 keeps statistics of each slot of which it has a key: 40 MiB for all of them.
const SLOT: u64 = 2560;

/// Room for keys below which a node is of no use: a session takes 160 bytes.
const USEFUL: u64 = MIB;

/// How a node's memory is shared out, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// `maxmemory`.
    pub(crate) data: u64,
    /// What a replica that lost its connection finds again instead of copying everything. The more keys, the more of them change
    /// in the seconds that this takes.
    pub(crate) backlog: u64,
    /// What may wait for a replica that copies everything before it is cut off: the longer the copy takes, the more. Redis counts
    /// the backlog in.
    pub(crate) replica_buffer: u64,
}

impl Shares {
    pub(crate) fn of(cluster: RedisCluster, memory: Size) -> Self {
        let memory = memory.as_mebibytes();
        let backlog = (memory / 32).clamp(1, 64);
        let data = match cluster {
            // A copy for a new replica holds twice what changes meanwhile. Of a small cache that may be everything; of a large one
            // half, when 5 000 keys change each second. Too much would cost a node that begins anew with an empty cache.
            RedisCluster::Cache => memory.saturating_sub(2 * PROGRAM) * 3 / 5,
            // The same holds for the rewriting of the append-only file; and nobody is to be logged out. So there is room for
            // everything twice, and a fifth for replicas, for fragmentation, and for what the disk is slow to take.
            RedisCluster::Sessions => memory.saturating_sub(PROGRAM) * 2 / 5,
        };
        // 0 would be no limit.
        Self { data: data.max(1), backlog, replica_buffer: backlog + (memory / 16).max(1) }
    }

    /// Bytes that are left for keys when everything that a node keeps besides is there.
    fn keys(self, shards: i32) -> u64 {
        let slots = 16384 / u64::try_from(shards.max(1)).unwrap_or(1);
        (self.data * MIB).saturating_sub(self.backlog * MIB + EMPTY + slots * SLOT)
    }
}

/// The least memory with which a node is of use. All slots take 40 MiB, so a gibibyte always is.
pub(crate) fn least(cluster: RedisCluster, shards: i32) -> Size {
    let useful = |memory: &Size| Shares::of(cluster, *memory).keys(shards) >= USEFUL;
    (1..1024).map(Size::mebibytes).find(useful).unwrap_or(Size::gibibytes(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node takes when this part of its data is there twice, and a replica is as far behind as it may be.
    fn most(shares: Shares, twice_of_100: u64) -> u64 {
        PROGRAM + shares.data + shares.data * twice_of_100 / 100 + shares.replica_buffer - shares.backlog
    }

    #[test]
    fn what_a_node_may_take_fits() {
        for memory in 32..20_000 {
            let sessions = Shares::of(RedisCluster::Sessions, Size::mebibytes(memory));
            assert!(most(sessions, 100) <= memory, "{memory} MiB: {sessions:?}");
            assert!(sessions.backlog * 6 <= sessions.data, "{memory} MiB: {sessions:?}");
            let cache = Shares::of(RedisCluster::Cache, Size::mebibytes(memory));
            let twice = if memory <= 128 { 75 } else { 50 };
            assert!(most(cache, twice) <= memory, "{memory} MiB: {cache:?}");
        }
    }

    #[test]
    fn no_memory_is_never_no_limit() {
        for memory in 0..32 {
            for cluster in [RedisCluster::Cache, RedisCluster::Sessions] {
                let Shares { data, backlog, replica_buffer } = Shares::of(cluster, Size::mebibytes(memory));
                assert!(data > 0 && backlog > 0 && replica_buffer > backlog);
            }
        }
    }

    #[test]
    fn shares_of_some_nodes() {
        let shares = |cluster, memory| {
            let Shares { data, backlog, replica_buffer } = Shares::of(cluster, Size::mebibytes(memory));
            (data, backlog, replica_buffer)
        };
        assert_eq!(shares(RedisCluster::Sessions, 64), (19, 2, 6));
        assert_eq!(shares(RedisCluster::Sessions, 128), (44, 4, 12));
        assert_eq!(shares(RedisCluster::Sessions, 1 << 10), (403, 32, 96));
        assert_eq!(shares(RedisCluster::Cache, 128), (57, 4, 12));
        assert_eq!(shares(RedisCluster::Cache, 4 << 10), (2438, 64, 320));
    }
}
