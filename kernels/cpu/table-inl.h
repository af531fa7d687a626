// The table of one instruction set: included after the other *-inl.h files.

constexpr CpuKernels kKernels = {
    .has_bf16_dot = kHasBf16Dot,
    .tile_rows = TileRowsBody,
    .pack_tile = PackTileBody,
    .mat_mul = MatMulBody,
    .embed = EmbedBody,
    .add_norm = AddNormBody,
    .add_bias = AddBiasBody,
    .silu_mul = SiluMulBody,
    .router_top_k = RouterTopKBody,
    .combine_experts = CombineExpertsBody,
    .tree_sum = TreeSumBody,
    .rope_write_kv = RopeWriteKvBody,
    .attention = AttentionBody,
    .max_of = MaxOfBody,
    .sum_exp = SumExpBody,
    .exp_of = ExpOfBody,
    .log_of = LogOfBody,
    .gumbel = GumbelBody,
};
